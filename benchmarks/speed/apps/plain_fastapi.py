"""The same in plain FastAPI, whose annotated results pydantic writes: the quickest way its manual has."""

import time

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Pair(BaseModel):
    a: int
    b: int


class Item(BaseModel):
    id: int
    name: str
    price: float
    quantity: int
    tags: list[str]


class Batch(BaseModel):
    items: list[Item]


class Values(BaseModel):
    values: list[float]


class Seconds(BaseModel):
    seconds: float


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/add")
async def add(pair: Pair) -> dict[str, int]:
    return {"sum": pair.a + pair.b}


@app.post("/add-sync")
def add_sync(pair: Pair) -> dict[str, int]:
    return {"sum": pair.a + pair.b}


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, int]:
    return {"id": item_id}


@app.post("/bulk")
async def bulk(batch: Batch) -> dict[str, int]:
    return {"count": len(batch.items), "total": sum(each.quantity for each in batch.items)}


@app.post("/scale")
async def scale(body: Values) -> dict[str, list[float]]:
    return {"values": [value * 2 for value in body.values]}


@app.post("/scale-bare")
async def scale_bare(body: Values):
    return {"values": [value * 2 for value in body.values]}


@app.post("/sleep")
async def sleep(body: Seconds) -> dict[str, float]:
    time.sleep(body.seconds)
    return {"slept": body.seconds}


@app.post("/spin")
async def spin(body: Seconds) -> dict[str, float]:
    until = time.monotonic() + body.seconds
    while time.monotonic() < until:
        pass
    return {"spun": body.seconds}
