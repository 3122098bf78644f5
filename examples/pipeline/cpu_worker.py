"""Two queue-based endpoints without a GPU."""

from runpod_flash import Endpoint


@Endpoint(name="preprocess", cpu="cpu3c-1-2")
async def split(text: str) -> list[str]:
    return text.lower().split()


@Endpoint(name="postprocess", cpu="cpu3c-1-2")
def choose(scores: dict) -> dict:
    if not scores:
        raise ValueError("nothing was scored")
    best = max(scores, key=scores.get)
    return {"best": best, "scores": scores}
