"""A small search engine: typed models, an upload, path parameters, a stream, and a module of its own."""

import asyncio

from fastapi import HTTPException
from index import Index
from pydantic import BaseModel, Field

from runpod_flash import Endpoint

api = Endpoint(name="search", cpu="cpu3c-1-2", workers=(1, 1))

# One index in each worker: run it with one worker, or put the documents elsewhere.
index = Index()


class Document(BaseModel):
    """A text under an id."""

    id: str = Field(min_length=1, max_length=100)
    text: str


class Hit(BaseModel):
    """A document that was found, and how well it fits."""

    id: str
    score: float


@api.post("/documents")
def add_document(document: Document) -> Document:
    """Adds a document, or replaces the one of that id."""
    index.add(document.id, document.text)
    return document


@api.get("/documents/{id}")
async def get_document(id: str) -> Document:  # noqa: A002  the path's word
    """The document of that id."""
    text = index.texts.get(id)
    if text is None:
        raise HTTPException(404, f"there is no document {id!r}")
    return Document(id=id, text=text)


@api.delete("/documents/{id}")
async def remove_document(id: str):  # noqa: A002  the path's word
    """Removes the document of that id, where there is one."""
    return {"removed": index.remove(id)}


@api.post("/upload")
def upload(file: bytes, prefix: str = "line"):
    """Adds each line of a text file as a document."""
    lines = [line for line in file.decode("utf-8", "replace").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        index.add(f"{prefix}-{number}", line)
    return {"added": len(lines)}


@api.post("/search")
def search(query: str, limit: int = 10) -> list[Hit]:
    """The documents that fit the query best, best first."""
    return [Hit(id=id_, score=score) for id_, score in index.search(query)[:limit]]


@api.get("/export")
async def export():
    """Every document, a JSON object a line, as it is read."""
    for id_, text in list(index.texts.items()):
        yield {"id": id_, "text": text}
        await asyncio.sleep(0)
