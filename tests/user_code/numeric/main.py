"""A handler with a compiled dependency, which `flash build` packs into the artifact."""

from runpod_flash import Endpoint

api = Endpoint(name="numeric", cpu="cpu3c-1-2", dependencies=["numpy"])


@api.post("/solve")
async def solve(matrix: list[list[float]], vector: list[float]):
    import numpy as np  # here, since `flash build` imports the module where there is no numpy

    return {"solution": np.linalg.solve(np.array(matrix), np.array(vector)).tolist()}
