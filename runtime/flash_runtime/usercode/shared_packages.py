"""The packages that the runtime and user code share, of which the image's version wins."""

from __future__ import annotations

SHARED = {
    "annotated-doc": "annotated_doc",
    "annotated-types": "annotated_types",
    "anyio": "anyio",
    "click": "click",
    "cloudpickle": "cloudpickle",
    "fastapi": "fastapi",
    "flash-runtime": "flash_runtime",
    "gunicorn": "gunicorn",
    "h11": "h11",
    "httptools": "httptools",
    "idna": "idna",
    "nvidia-ml-py": "pynvml",
    "opentelemetry-api": "opentelemetry",
    "orjson": "orjson",
    "pydantic": "pydantic",
    "pydantic-core": "pydantic_core",
    "python-multipart": "python_multipart",
    "starlette": "starlette",
    "typing-extensions": "typing_extensions",
    "typing-inspection": "typing_inspection",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
}
"""Every distribution that the runtime depends on, however deep, and the module it is imported as."""
