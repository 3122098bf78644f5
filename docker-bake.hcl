# Both images for all of their platforms, with `docker buildx bake`. Set the variables in the environment:
#   IMAGE=registry/flash-runtime VERSION=1.0.0 REVISION=$(git rev-parse HEAD) docker buildx bake --push

variable "IMAGE" { default = "flash-runtime" }
variable "VERSION" { default = "0.2.0" }
variable "REVISION" { default = "unknown" }
variable "SOURCE" { default = "" }

group "default" {
  targets = ["cpu", "cuda"]
}

target "runtime" {
  args = {
    VERSION  = VERSION
    REVISION = REVISION
    SOURCE   = SOURCE
  }
}

target "cpu" {
  inherits   = ["runtime"]
  dockerfile = "Dockerfile.cpu"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${IMAGE}:cpu", "${IMAGE}:${VERSION}-cpu"]
  args       = { IMAGE = "${IMAGE}:cpu" }
}

target "cuda" {
  inherits   = ["runtime"]
  dockerfile = "Dockerfile"
  platforms  = ["linux/amd64"]
  tags       = ["${IMAGE}:cuda", "${IMAGE}:${VERSION}-cuda"]
  args       = { IMAGE = "${IMAGE}:cuda" }
}
