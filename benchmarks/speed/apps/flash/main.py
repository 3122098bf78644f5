"""What is measured, as a Flash application: `flash build` packs it, and both runtimes serve that artifact."""

import time

from pydantic import BaseModel

from runpod_flash import Endpoint

api = Endpoint(name="speed", cpu="cpu3c-1-2")


class Item(BaseModel):
    id: int
    name: str
    price: float
    quantity: int
    tags: list[str]


class Batch(BaseModel):
    items: list[Item]


@api.post("/add")
async def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


@api.post("/add-sync")
def add_sync(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


@api.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, int]:
    return {"id": item_id}


@api.post("/bulk")
async def bulk(batch: Batch) -> dict[str, int]:
    return {"count": len(batch.items), "total": sum(each.quantity for each in batch.items)}


@api.post("/scale")
async def scale(values: list[float]) -> dict[str, list[float]]:
    return {"values": [value * 2 for value in values]}


@api.post("/scale-bare")
async def scale_bare(values: list[float]):
    return {"values": [value * 2 for value in values]}


@api.post("/sleep")
async def sleep(seconds: float) -> dict[str, float]:
    time.sleep(seconds)
    return {"slept": seconds}


@api.post("/spin")
async def spin(seconds: float) -> dict[str, float]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return {"spun": seconds}
