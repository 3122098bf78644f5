"""The second of two endpoints: it asks the first one, by its name on their network."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request

from fastapi import HTTPException

from runpod_flash import Endpoint

orders = Endpoint(name="orders", cpu="cpu3c-1-2")

CATALOG = os.environ.get("CATALOG_URL", "http://catalog")


@orders.post("/total")
def total(items: list[str]) -> dict[str, float]:
    """The sum of the items' prices; 422 where the catalog has no such item."""
    return {"total": round(sum(price_of(item) for item in items), 2)}


def price_of(item: str) -> float:
    url = f"{CATALOG}/prices/{urllib.parse.quote(item, safe='')}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return float(json.load(response)["price"])
    except urllib.error.HTTPError as error:
        raise HTTPException(422, f"the catalog says {error.code} to {item!r}") from error
