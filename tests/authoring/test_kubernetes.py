"""The Kubernetes objects of a release, and their way into a cluster, over real HTTP to a fake API."""

from __future__ import annotations

import dataclasses
import gc
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flash_cli.application import Application, DeclaredEndpoint, Function, Place
from flash_cli.deploying.environments import KubernetesEnvironment
from flash_cli.deploying.services import Release, release_of
from flash_cli.deploying.targets.kubernetes.target import KubernetesTarget
from flash_cli.faults import ConfigFault, TargetFault
from runpod_flash import GpuGroup
from tests.authoring import fake_cluster

ENVIRONMENT = KubernetesEnvironment(
    name="production",
    namespace="apps",
    repository="registry.example.com/team/shop",
    secrets=("FLASH_API_KEY",),
)
ON_VOLUME = dataclasses.replace(ENVIRONMENT, artifact="volume", volume="artifacts", repository=None)
APPLIED = dataclasses.replace(ON_VOLUME, context="test")


def endpoint(name: str, **options: Any) -> DeclaredEndpoint:
    place = Place("main.py", 1)
    return DeclaredEndpoint(name, place, (Function("f", "main", place, method="GET", path="/f"),), options)


API = endpoint("user_api", cpu="cpu3c-2-4", workers=(2, 5), env={"OWN": "1"})
GPU = endpoint("inference", gpu=GpuGroup.ADA_24, gpu_count=2, workers=1)


@dataclasses.dataclass
class Deployer:
    """Deploys as the command does when it has built; what it says is kept."""

    root: Path
    said: list[str] = dataclasses.field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.root / ".flash" / "kubernetes" / "production"

    def release(
        self, environment: KubernetesEnvironment, *endpoints: DeclaredEndpoint, content: bytes = b"artifact"
    ) -> Release:
        artifact = self.root / "artifact.tar.gz"
        artifact.write_bytes(content)
        application = Application("shop", self.root, endpoints)
        return release_of(application, environment, artifact, {"FLASH_API_KEY": "k3y"}, timeout=3)

    def target(self, environment: KubernetesEnvironment) -> KubernetesTarget:
        return KubernetesTarget(environment, "shop", self.root)

    def __call__(
        self, environment: KubernetesEnvironment, *endpoints: DeclaredEndpoint, **options: Any
    ) -> dict[str, str]:
        release = self.release(environment, *endpoints, **options)
        return dict(self.target(environment).deploy(release, self.said.append))

    def written(self) -> dict[str, dict[str, Any]]:
        """The objects by kind and name."""
        every = [
            each for path in self.directory.glob("*.yaml") for each in yaml.safe_load_all(path.read_text())
        ]
        return {f"{each['kind']} {each['metadata']['name']}": each for each in every}


@pytest.fixture
def deployer(tmp_path: Path) -> Deployer:
    return Deployer(tmp_path)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_cluster.Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with fake_cluster.serve(tmp_path / "kubeconfig") as served:
        # The client looks for its kubeconfig when it is imported.
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig")
        )
        yield served
    gc.collect()


def worker(deployment: dict[str, Any]) -> dict[str, Any]:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(deployment: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in worker(deployment)["env"]}


@pytest.mark.parametrize("environment", [ENVIRONMENT, ON_VOLUME], ids=["image", "volume"])
@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_every_object_is_valid_by_the_schemas_of_the_api(deployer, environment, version):
    deployer(environment, API, GPU)
    objects = deployer.written()
    assert len(objects) == 6
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)


def test_an_endpoint_is_a_deployment_a_service_and_an_autoscaler_from_workers(deployer):
    deployer(ENVIRONMENT, API, GPU)
    objects = deployer.written()
    scaler = objects["HorizontalPodAutoscaler shop-production-user-api"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)
    assert "replicas" not in objects["Deployment shop-production-user-api"]["spec"]
    # workers=1 is from none to one, and an autoscaler has no none.
    assert "HorizontalPodAutoscaler shop-production-inference" not in objects
    assert objects["Deployment shop-production-inference"]["spec"]["replicas"] == 1
    service = objects["Service shop-production-user-api"]["spec"]
    pods = objects["Deployment shop-production-user-api"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= pods.items()


def test_pods_ask_for_what_the_endpoint_asks_for(deployer):
    deployer(ENVIRONMENT, API, GPU)
    objects = deployer.written()
    api = worker(objects["Deployment shop-production-user-api"])
    gpu = worker(objects["Deployment shop-production-inference"])
    assert api["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert gpu["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert "-flash-runtime-cpu" in api["image"]
    assert "-flash-runtime-cuda" in gpu["image"]


def test_health_is_asked_on_its_own_port_and_stopping_has_the_time_to_drain(deployer):
    deployer(ENVIRONMENT, API)
    deployment = deployer.written()["Deployment shop-production-user-api"]
    api = worker(deployment)
    (port,) = [each["containerPort"] for each in api["ports"] if each["name"] == "health"]
    assert variables(deployment)["PORT_HEALTH"] == str(port) != variables(deployment)["PORT"]
    paths = {
        probe: api[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 31
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_endpoints_find_each_other_by_their_services_under_names_that_dns_allows(deployer):
    deployer(ENVIRONMENT, API, GPU)
    environ = variables(deployer.written()["Deployment shop-production-inference"])
    assert environ["FLASH_PEER_URL"] == "http://shop-production-{resource}:80"
    assert environ["FLASH_PEERS"] == '{"user_api": "http://shop-production-user-api:80"}'
    assert environ["FLASH_RESOURCE_NAME"] == "inference"


def test_secrets_are_in_the_secret_alone_which_its_owner_alone_can_read(deployer):
    deployer(ENVIRONMENT, API)
    (path,) = [each for each in deployer.directory.rglob("*") if each.is_file() and "k3y" in each.read_text()]
    assert path.name == "_secret.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any("k3y" in line for line in deployer.said)
    token = deployer.written()["Secret shop-production"]["stringData"]["FLASH_EXECUTE_TOKEN"]
    deployer(ENVIRONMENT, API)
    assert deployer.written()["Secret shop-production"]["stringData"]["FLASH_EXECUTE_TOKEN"] == token


def test_the_same_release_is_written_in_the_same_bytes(deployer):
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in deployer.directory.rglob("*") if path.is_file()}

    deployer(ENVIRONMENT, API, GPU)
    before = files()
    deployer(ENVIRONMENT, API, GPU)
    assert files() == before
    deployer(ENVIRONMENT, GPU)
    assert set(before) - set(files()) == {"user-api.yaml"}


def test_without_a_context_objects_are_written_and_the_commands_told(deployer):
    assert deployer(ENVIRONMENT, API) == {}
    told = "\n".join(deployer.said)
    assert "not applied" in told
    assert f"kubectl apply --server-side --field-manager=flash -n apps -f {deployer.directory}" in told
    (dockerfile,) = deployer.directory.rglob("Dockerfile")
    assert dockerfile.read_text() == "FROM flash-runtime:cpu\nADD artifact.tar.gz /app/\n"
    assert (dockerfile.parent / "artifact.tar.gz").read_bytes() == b"artifact"
    image = worker(deployer.written()["Deployment shop-production-user-api"])["image"]
    assert f"docker build -t {image} {dockerfile.parent}" in told
    with pytest.raises(ConfigFault, match="has no context"):
        deployer.target(ENVIRONMENT).status()


def test_with_a_context_they_are_applied_and_the_rollout_is_waited_for(deployer, cluster):
    assert deployer(APPLIED, API, GPU) == {
        "user_api": "http://shop-production-user-api.apps:80",
        "inference": "http://shop-production-inference.apps:80",
    }
    assert set(cluster.named("deployments")) == {"shop-production-user-api", "shop-production-inference"}
    assert set(cluster.named("horizontalpodautoscalers")) == {"shop-production-user-api"}
    states = deployer.target(APPLIED).status()
    assert [(state.endpoint, state.ready, state.note) for state in states] == [
        ("inference", 1, ""),
        ("user_api", 1, ""),
    ]
    assert list(deployer.target(APPLIED).logs("user_api", follow=False, lines=5)) == [
        ("user_api", "listening")
    ]
    assert sorted(deployer.target(APPLIED).logs(None, follow=True, lines=5)) == [
        ("inference", "listening"),
        ("user_api", "listening"),
    ]


def test_an_endpoint_that_is_no_longer_declared_is_deleted(deployer, cluster):
    deployer(APPLIED, API, GPU)
    deployer(APPLIED, GPU)
    assert (
        set(cluster.named("deployments")) == set(cluster.named("services")) == {"shop-production-inference"}
    )
    assert cluster.named("horizontalpodautoscalers") == {}


def test_a_release_that_never_turns_ready_is_set_back_and_its_last_lines_are_shown(deployer, cluster):
    deployer(APPLIED, API, GPU)
    before = {name: each["spec"] for name, each in cluster.named("deployments").items()}
    token = cluster.objects["secrets", "shop-production"]["data"]["FLASH_EXECUTE_TOKEN"]
    never = endpoint("user_api", cpu="cpu3c-2-4", workers=(2, 5), env={"BOOT": "never"})
    with pytest.raises(TargetFault) as fault:
        deployer(APPLIED, never, GPU, content=b"another")
    assert "A worker of user_api has ended 2 times, the last with exit code 70" in fault.value.what
    assert "RuntimeError: the weights are gone" in str(fault.value)
    assert {name: each["spec"] for name, each in cluster.named("deployments").items()} == before
    assert cluster.objects["secrets", "shop-production"]["data"]["FLASH_EXECUTE_TOKEN"] == token


def test_a_first_release_that_never_turns_ready_leaves_no_deployment(deployer, cluster):
    with pytest.raises(TargetFault, match="has ended 2 times"):
        deployer(APPLIED, endpoint("user_api", cpu="cpu3c-1-2", env={"BOOT": "never"}))
    assert cluster.named("deployments") == {}


def test_objects_of_others_are_left_alone(deployer, cluster):
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop-production-user-api", "labels": {}},
    }
    cluster.objects["services", "shop-production-user-api"] = foreign
    with pytest.raises(
        TargetFault, match="Service shop-production-user-api exists and does not belong to this deployment"
    ):
        deployer(APPLIED, API)
    assert not any(line.startswith(("PATCH", "PUT", "DELETE")) for line in cluster.asked)


def test_undeploying_takes_away_what_was_deployed_and_nothing_else(deployer, cluster):
    cluster.objects["services", "foreign"] = {
        "kind": "Service",
        "metadata": {"name": "foreign", "labels": {}},
    }
    deployer(APPLIED, API, GPU)
    deployer.target(APPLIED).undeploy(["user_api"], deployer.said.append)
    assert [state.endpoint for state in deployer.target(APPLIED).status()] == ["inference"]
    assert cluster.named("secrets")
    deployer.target(APPLIED).undeploy(["inference"], deployer.said.append)
    assert {name for kind, name in cluster.objects if kind != "pods"} == {"foreign"}


def test_a_context_that_is_not_there_is_told_with_those_that_are(deployer, cluster):
    with pytest.raises(ConfigFault) as fault:
        deployer(dataclasses.replace(APPLIED, context="nowhere"), API)
    assert "'nowhere'" in fault.value.what
    assert "test" in str(fault.value.remedy)


def test_a_cluster_that_does_not_answer_is_told(deployer, tmp_path, monkeypatch):
    with fake_cluster.serve(tmp_path / "kubeconfig"):
        pass
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig")
    )
    with pytest.raises(TargetFault, match="does not answer") as fault:
        deployer(APPLIED, API)
    assert "127.0.0.1" in str(fault.value.where)
