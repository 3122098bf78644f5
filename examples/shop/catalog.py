"""The first of two endpoints: what there is to buy."""

from fastapi import HTTPException

from runpod_flash import Endpoint

catalog = Endpoint(name="catalog", cpu="cpu3c-1-2")

PRICES = {"apple": 0.4, "pear": 0.5, "melon": 2.1}


@catalog.get("/prices/{item}")
async def price(item: str) -> dict[str, str | float]:
    """The price of an item; 404 where there is none."""
    if item not in PRICES:
        raise HTTPException(404, f"no such item: {item}")
    return {"item": item, "price": PRICES[item]}
