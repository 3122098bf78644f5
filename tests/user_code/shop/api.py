"""An application with every shape of handler that Flash builds, to compare the runtime with the vendor's."""

import asyncio
import datetime
import enum
import math
import uuid
from dataclasses import dataclass

import logger
from fastapi import HTTPException
from helpers.text import shout
from markupsafe import Markup
from pydantic import BaseModel, Field

from runpod_flash import Endpoint

api = Endpoint(name="shop-api", cpu="cpu3c-1-2", workers=(1, 3), dependencies=["markupsafe"])


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    name: str = Field(min_length=1)
    price: float = 1.0
    tags: list[str] = []
    color: Color = Color.RED


class Basket(BaseModel):
    items: list[Item]
    note: str | None = None


@dataclass
class Point:
    x: int
    y: int = 0


@api.get("/health")
async def health():
    """Is it up?"""
    return {"status": "ok"}


@api.get("/users/{user_id}")
def get_user(user_id: int, verbose: bool = False, tag: str | None = None):
    return {"id": user_id, "verbose": verbose, "tag": tag}


@api.get("/users/me")
def me():
    return {"id": "me"}


@api.post("/users")
async def create_user(name: str, email: str = "x@y", age: int | None = None):
    """Creates a user."""
    return {"name": shout(name), "email": email, "age": age}


@api.put("/users/{user_id}")
def replace_user(user_id: int, name: str, tags: list[str] = []):  # noqa: B006
    tags.append("seen")
    return {"id": user_id, "name": name, "tags": tags}


@api.patch("/users/{user_id}")
async def change_user(user_id: uuid.UUID, *, since: datetime.datetime, color: Color = Color.BLUE):
    return {"id": user_id, "since": since, "color": color}


@api.delete("/users/{user_id}")
def remove_user(user_id: int):
    return None


@api.post("/items")
async def create_item(item: Item) -> Item:
    return item


@api.post("/baskets/{number}")
def create_basket(number: int, basket: Basket, dry: bool = False) -> dict:
    return {"number": number, "count": len(basket.items), "dry": dry, "first": basket.items[0].color}


@api.post("/items/many")
def create_items(items: list[Item], total: float):
    return {"count": len(items), "total": total, "items": items}


@api.post("/upload")
async def upload(file: bytes, label: str = "none", copies: int = 1):
    return {"size": len(file), "label": label, "copies": copies}


@api.post("/upload/{name}")
def upload_named(name: str, first: bytes, second: bytes = b""):
    return {"name": name, "sizes": [len(first), len(second)]}


@api.post("/process")
async def process(data: dict) -> dict:
    return {"echo": data}


@api.post("/anything")
async def anything(value, other=3):
    return [value, other]


@api.post("/nothing")
async def nothing():
    return "done"


@api.post("/numbers")
def numbers(values: list[float]):
    return {"sum": math.fsum(values), "values": values}


@api.post("/shadow")
def shadow(schema: str, copy: int = 0, model_config: str = "", json: bool = False):
    return [schema, copy, model_config, json]


@api.post("/named")
def named(name: str, **extra):
    return {"name": name}


@api.get("/typed/{count}")
def typed(count: int) -> list[Item]:
    return [{"name": f"item {number}", "price": number} for number in range(count)]


@api.get("/markup")
def markup(text: str):
    return {"escaped": str(Markup.escape(text)), "logger": logger.WHO}


@api.get("/missing")
def missing():
    raise HTTPException(404, "no such thing", headers={"X-Why": "gone"})


@api.get("/broken")
def broken():
    raise ValueError("a secret")


@api.post("/points")
def points(point: Point):
    return {"sum": point.x + point.y}


@api.get("/stream")
def stream(count: int = 3):
    for number in range(count):
        yield f"{number}\n"


@api.get("/stream/objects")
async def stream_objects():
    for number in range(3):
        await asyncio.sleep(0)
        yield {"number": number}


@api.post("/stream/words")
def stream_words(text: str):
    yield from text.split()


@api.get("/nan")
def nan():
    return {"value": math.nan, "values": [math.inf, 1.0]}
