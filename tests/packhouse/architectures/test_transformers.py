"""The architecture `transformers`: the library's own models from a config, and nothing else from anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from packhouse.architectures import registry
from packhouse.architectures import transformers as pretrained
from packhouse.errors import ArchitectureUnknown, WeightsInvalid

INPUTS, OUTPUTS = ["input_ids", "attention_mask"], ["logits"]
IDS, MASK = torch.arange(8).reshape(1, 8) + 3, torch.ones(1, 8, dtype=torch.int64)
CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
    "num_labels": 3,
}


@pytest.fixture
def trained() -> transformers.BertForSequenceClassification:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**CONFIG)).eval()


@pytest.fixture
def saved(trained, tmp_path) -> Path:
    """In shards."""
    trained.save_pretrained(tmp_path / "saved", max_shard_size="10KB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
    return tmp_path / "saved"


def load(folder: Path, **more: str):
    return pretrained.load(folder, inputs=INPUTS, outputs=OUTPUTS, **more)


def edited(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.slow
def test_what_was_saved_in_shards_answers_as_what_was_trained(trained, saved):
    model, _ = load(saved)
    assert torch.equal(model(IDS, MASK), trained(input_ids=IDS, attention_mask=MASK).logits)


def test_the_registry_builds_the_same_model_from_the_arguments(trained, saved):
    _, arguments = load(saved)
    built = registry.build(pretrained.ARCHITECTURE, json.loads(json.dumps(arguments)))
    built.load_state_dict(trained.state_dict())
    assert torch.equal(built(IDS, MASK), trained(input_ids=IDS, attention_mask=MASK).logits)


def test_another_version_of_the_library_is_another_release():
    found = registry.fingerprint(pretrained.ARCHITECTURE)
    assert found["requires"]["transformers"] == transformers.__version__


def test_weights_that_are_missing_are_never_made_up(saved):
    with pytest.raises(WeightsInvalid, match=r"missing.*cls\.predictions|missing.*cls\.seq"):
        load(saved, model="BertForPreTraining")


def test_code_from_elsewhere_is_refused_here_and_on_the_worker(saved):
    _, arguments = load(saved)
    hostile = edited(saved, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(ArchitectureUnknown, match="auto_map"):
        load(hostile)
    with pytest.raises(ArchitectureUnknown, match="auto_map"):
        pretrained.build(**(arguments | {"config": (hostile / "config.json").read_text()}))


def test_pickled_weights_are_refused(trained, saved):
    for file in saved.glob("*.safetensors*"):
        file.unlink()
    torch.save(trained.state_dict(), saved / "pytorch_model.bin")
    with pytest.raises(WeightsInvalid, match="do not load"):
        load(saved)


@pytest.mark.parametrize("name", ["NoSuchModel", "BertConfig", "pipeline", "os", "__name__"])
def test_what_is_no_model_of_the_library_is_refused(saved, name):
    with pytest.raises(ArchitectureUnknown, match="no such model"):
        load(saved, model=name)


def test_a_config_of_another_model_or_of_none_is_refused(saved):
    with pytest.raises(ArchitectureUnknown, match="of another model"):
        load(edited(saved, model_type="gpt2"))
    with pytest.raises(ArchitectureUnknown, match="names no class"):
        load(edited(saved, architectures=None))
    (saved / "config.json").write_text("{")
    with pytest.raises(ArchitectureUnknown, match="no JSON"):
        load(saved, model="BertModel")
