"""The blocks of the guide `Load-Balanced Endpoints`, word for word, and what runs them."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.serving import environment

FLASH = Path(sys.executable).parent / "flash"
CLOUD = "https://{endpoint-id}.api.runpod.ai"
"""Where the guide's commands find an endpoint; a test has another place."""

QUICK_START = """
from runpod_flash import Endpoint, GpuGroup

# create a load-balanced endpoint
api = Endpoint(name="example-api", gpu=GpuGroup.ADA_24, workers=(1, 3))

@api.post("/greet")
async def greet_user(name: str):
    return {"message": f"Hello, {name}!"}

@api.get("/health")
async def health():
    return {"status": "ok"}
"""
ROUTING = """
from runpod_flash import Endpoint

api = Endpoint(name="user-service", cpu="cpu3c-1-2", workers=(1, 5))

@api.get("/users")
def list_users():
    return {"users": []}

@api.post("/users")
async def create_user(name: str, email: str):
    return {"id": 1, "name": name, "email": email}

@api.get("/users/{user_id}")
def get_user(user_id: int):
    return {"id": user_id, "name": "Alice"}

@api.delete("/users/{user_id}")
async def delete_user(user_id: int):
    return {"deleted": True}
"""
GPU = """
from runpod_flash import Endpoint, GpuGroup

api = Endpoint(name="inference-api", gpu=GpuGroup.ADA_24, workers=(1, 5))

@api.post("/predict")
async def predict(data: dict) -> dict:
    import torch
    model = torch.load("/models/model.pt")
    return {"prediction": model.predict(data)}

@api.get("/health")
async def health():
    return {"status": "ok", "gpu": "available"}
"""
CPU = """
from runpod_flash import Endpoint

api = Endpoint(name="data-api", cpu="cpu3c-1-2", workers=(1, 3))

@api.post("/process")
async def process(data: dict) -> dict:
    return {"echo": data}

@api.get("/health")
async def health():
    return {"status": "healthy"}
"""
TESTING = """
import pytest
from runpod_flash import Endpoint

api = Endpoint(name="test-api", cpu="cpu3c-1-2")

@api.post("/calculate")
async def calculate(operation: str, a: int, b: int):
    if operation == "add":
        return a + b
    elif operation == "multiply":
        return a * b
    raise ValueError(f"Unknown operation: {operation}")

@pytest.mark.asyncio
async def test_calculate_add():
    result = await calculate("add", 5, 3)
    assert result == 8
"""
VERIFYING = r"""
# health check
curl https://{endpoint-id}.api.runpod.ai/ping

# call a route
curl -X POST https://{endpoint-id}.api.runpod.ai/users \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer $RUNPOD_API_KEY" \
  -d '{"name": "Alice", "email": "alice@example.com"}'
"""
CALLING = """
from runpod_flash import Endpoint

ep = Endpoint(id="your-endpoint-id")

# HTTP calls return raw response data
result = await ep.post("/predict", {"data": [1, 2, 3]})
health = await ep.get("/health")
"""
BLOCKS = (QUICK_START, ROUTING, GPU, CPU, TESTING, VERIFYING, CALLING)
COMMANDS = ("flash run", "flash build", "flash deploy --env production")

QUEUE = """
from runpod_flash import Endpoint

@Endpoint(name="worker")
async def work(x: int):
    return x
"""
"""The guide has no block of the other kind, and says `@Endpoint(...) on a function`."""
TORCH = """
class Model:
    def predict(self, data):
        return sorted(data)

def load(path):
    assert path == "/models/model.pt"
    return Model()
"""
"""A module of the project that stands in for torch and the model, which the guide does not bring along."""


def write(place: Path, **modules: str) -> Path:
    place.mkdir(exist_ok=True)
    for name, source in modules.items():
        (place / f"{name}.py").write_text(source)
    return place


def run(command: str, project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of the guide, as a shell runs it."""
    environ = {**environment(), **variables}
    environ["PATH"] = f"{FLASH.parent}{os.pathsep}{environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", command],
        cwd=project,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def awaited(block: str) -> dict[str, Any]:
    """The names that a block with `await` in it leaves, as `python -m asyncio` runs it."""
    names: dict[str, Any] = {}
    code = compile(block, "guide.py", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run_block() -> None:
        await eval(code, names)

    asyncio.run(run_block())
    return names
