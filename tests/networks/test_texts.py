"""Tokenizers and text classifiers: tiny models of three architectures that stand in a folder, and no network."""

import copy
import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.func import functional_call

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.data.texts.tokens import open_tokenizer, tokenize, train_wordpiece
from sama.errors import SamaError
from sama.hypergradient import method
from sama.networks.correction import CorrectAndWeight, CorrectionNetwork
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.networks.texts import build_text_classifier, fits, save_pretrained
from sama.programs.auxiliary import Auxiliary, AuxiliaryBatch, mean_cross_entropy
from sama.programs.correct import Correct
from sama.programs.reweight import Reweight
from sama.programs.weighted import LabelledBatch
from sama.texts import MaskedTexts, TextExamples
from tests.networks import small_models
from tests.oracles import agreement
from tests.programs.written_out import check_hypergradient, randomized

CPU = torch.device("cpu")
WORDS = "the cat sat on a mat while two dogs ran under old trees and nobody saw them".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 7)) for i in range(24)]
LENGTH = 12
SIZES = {"hidden_size": 16, "layers": 2, "heads": 2, "max_length": LENGTH}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def wordpiece():
    return train_wordpiece(TEXTS, 60, LENGTH)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Masked language models of three architectures with their tokenizers, each in a folder."""
    torch.manual_seed(1)
    kinds = ("bert", "roberta", "distilbert")
    return {kind: small_models.save(kind, tmp_path_factory.mktemp(kind), TEXTS, LENGTH) for kind in kinds}


def opened(folder: Path | None, tokenizer, **options):
    given = {"classes": 3, "attention": "sdpa", "dropout": None, **SIZES}
    given |= {"vocabulary_size": len(tokenizer), "pad_id": tokenizer.pad_token_id} | options
    return build_text_classifier(None if folder is None else str(folder), **given)


def text_examples(tokenizer, texts=TEXTS) -> TextExamples:
    tokens, offsets, _ = tokenize(tokenizer, texts, LENGTH)
    labels = torch.arange(len(texts)) % 3
    return TextExamples(torch.from_numpy(tokens), torch.from_numpy(offsets), labels, tokenizer.pad_token_id)


def masked_texts(tokenizer) -> MaskedTexts:
    special = tuple(tokenizer.all_special_ids)
    return MaskedTexts(text_examples(tokenizer), tokenizer.mask_token_id, len(tokenizer), special, 0.3)


def batch_of(data: TextExamples, rows: range) -> LabelledBatch:
    indices = torch.tensor(rows)
    return LabelledBatch(data.begin(indices, CPU)(), data.labels[indices], indices)


def masked_batch_of(data: MaskedTexts, rows: range, seed: int = 0) -> LabelledBatch:
    indices = torch.tensor(rows)
    inputs = data.begin(indices, CPU, None, torch.Generator().manual_seed(seed))()
    return LabelledBatch(inputs, inputs["masked_labels"], indices)


# Tokenizers


def test_a_wordpiece_tokenizer_is_that_of_its_texts(wordpiece, tmp_path):
    again = [train_wordpiece(TEXTS, 60, LENGTH).get_vocab() for _ in range(5)]
    assert all(vocabulary == wordpiece.get_vocab() for vocabulary in again)
    assert len(wordpiece) == 60
    assert wordpiece.tokenize("The CAT sat") == wordpiece.tokenize("the cat sat")
    wordpiece.save_pretrained(tmp_path)
    again = open_tokenizer(str(tmp_path), LENGTH)
    assert again(TEXTS)["input_ids"] == wordpiece(TEXTS)["input_ids"]
    ids = again("the cat")["input_ids"]
    assert (ids[0], ids[-1]) == (again.cls_token_id, again.sep_token_id)
    assert again.unk_token_id not in ids
    assert again.decode(ids, skip_special_tokens=True) == "the cat"


def test_long_texts_are_cut_and_counted(wordpiece):
    texts = ["the cat", "the cat sat on " * 20, "a mat"]
    tokens, offsets, cut = tokenize(wordpiece, texts, 8)
    assert (cut, offsets.dtype.name, tokens.dtype.name) == (1, "int64", "int32")
    found = [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    whole = [wordpiece(text)["input_ids"] for text in texts]
    assert [found[0], found[2]] == [whole[0], whole[2]]
    assert found[1] == [*whole[1][:7], wordpiece.sep_token_id]


def test_tokenizers_that_do_not_do_are_one_line(wordpiece, tmp_path, folders):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((folders["bert"] / "config.json").read_bytes())
    plain = copy.deepcopy(wordpiece)
    plain.pad_token = None
    plain.save_pretrained(tmp_path / "plain")
    cases = [
        (lambda: tokenize(wordpiece, ["a", "\x00\x01"], 8), r"text 1: expected at least one token, .* '\\x00\\x01'$"),
        (lambda: tokenize(wordpiece, ["\x00"], 8, sample_id=["t/7"]), "text t/7: expected at least one token"),
        (lambda: tokenize(wordpiece, ["a"], 2), "expected max_length > 2, the tokenizer's special tokens, got 2"),
        (lambda: open_tokenizer(str(folders["bert"]), 13), "takes at most 12 tokens a text, got max_length 13"),
        (lambda: open_tokenizer(str(tmp_path / "plain"), 8), "expected a tokenizer with a padding token"),
        (lambda: open_tokenizer(str(nothing), 8), "nothing: not the folder of a tokenizer"),
        (lambda: open_tokenizer(str(bare), 8), "bare': its tokenizer knows no token but the special ones: expected"),
        (lambda: open_tokenizer("./bert", 8), "^./bert: expected the folder of a tokenizer, .* found nothing there$"),
        (lambda: open_tokenizer(str(bare / "config.json"), 8), "expected the folder of .*, found a file there$"),
        (
            lambda: open_tokenizer("some/model", 8),
            r"model 'some/model': .*save_pretrained\(FOLDER\); then set model.name to that folder$",
        ),
    ]
    for call, message in cases:
        with pytest.raises(SamaError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


# Classifiers


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_a_pretrained_model_keeps_its_weights_and_gets_a_new_head(folders, name, attention, capfd):
    from transformers import AutoModelForMaskedLM

    tokenizer = open_tokenizer(str(folders[name]), LENGTH)
    options = {"attention": attention, "masked_head": True, "class_names": ("a", "b", "c")}
    torch.manual_seed(3)
    model = opened(folders[name], tokenizer, **options).eval()
    assert capfd.readouterr() == ("", "")
    torch.manual_seed(3)
    again = opened(folders[name], tokenizer, **options)
    torch.manual_seed(4)
    other = opened(folders[name], tokenizer, **options)
    differing = {
        n for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True) if not torch.equal(p, q)
    }
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert differing and all(re.search("pooler|classifier", n) for n in differing)
    assert {f"model.{n}.weight" for n, part in model.model.named_modules() if part is model.head} <= differing
    assert (model.head.out_features, model.representation_size) == (3, 16)
    assert model.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    data, hub = masked_texts(tokenizer), AutoModelForMaskedLM.from_pretrained(folders[name]).eval()
    batch = masked_batch_of(data, range(8))
    inputs: Any = batch.inputs
    ids, mask, positions = (inputs[n] for n in ("input_ids", "attention_mask", "masked_positions"))
    expected = hub(input_ids=ids, attention_mask=mask).logits
    found = model(batch.inputs, "auxiliary")
    assert found.shape == (8, positions.shape[1], len(tokenizer))
    torch.testing.assert_close(found, expected[torch.arange(8)[:, None], positions], rtol=1e-4, atol=1e-5)
    seen = []
    model.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    logits = model(batch.inputs)
    torch.testing.assert_close(logits, seen[0] @ model.head.weight.T + model.head.bias)
    short = {n: v[:1, : int(mask[0].sum())] for n, v in {"input_ids": ids, "attention_mask": mask}.items()}
    torch.testing.assert_close(model(short), logits[:1], rtol=1e-4, atol=1e-5)  # padding changes nothing


@pytest.mark.parametrize("name", [None, "bert", "roberta", "distilbert"])
def test_other_values_of_tied_parameters_are_the_decoders_too(folders, wordpiece, name):
    folder = name and folders[name]
    tokenizer = wordpiece if folder is None else open_tokenizer(str(folder), LENGTH)
    model = opened(folder, tokenizer, masked_head=True).eval()
    batch = masked_batch_of(masked_texts(tokenizer), range(6))
    theta = {n: p + 0.1 * torch.randn_like(p) for n, p in model.named_parameters()}
    written = copy.deepcopy(model)
    with torch.no_grad():
        for n, p in written.named_parameters():
            p.copy_(theta[n])
    masked: Any = written.masked
    decoder = masked.get_output_embeddings()
    assert decoder.weight is written.model.get_input_embeddings().weight  # a copy is tied, too
    for head in ("task", "auxiliary"):
        found = functional_call(model, theta, (batch.inputs, head))
        torch.testing.assert_close(found, written(batch.inputs, head))
        assert not torch.allclose(found, model(batch.inputs, head))
    loss = model(batch.inputs).sum() + mean_cross_entropy(model(batch.inputs, "auxiliary"), batch.labels).sum()
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []  # no parameter that nothing reads


def test_the_small_bert_has_the_sizes_that_were_asked_for(wordpiece):
    torch.manual_seed(0)
    model = opened(None, wordpiece, dropout=0.25)
    torch.manual_seed(0)
    both = opened(None, wordpiece, dropout=0.25, masked_head=True)
    shared = dict(both.named_parameters())
    assert all(torch.equal(p, shared[n]) for n, p in model.named_parameters())
    config = model.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 2, 2)
    assert (config.intermediate_size, config.max_position_embeddings, config.vocab_size) == (64, LENGTH, 60)
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.25}


def test_a_head_of_other_classes_is_replaced(wordpiece, tmp_path):
    model = opened(None, wordpiece)
    save_pretrained(model, wordpiece, tmp_path, ("a", "b", "c"))
    same, other = opened(tmp_path, wordpiece), opened(tmp_path, wordpiece, classes=5)
    assert torch.equal(same.head.weight, model.head.weight)
    assert other.head.out_features == 5


def test_architectures_without_a_fused_kernel_or_a_padding_token_are_read(wordpiece, tmp_path):
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM, GPT2Config, GPT2LMHeadModel

    small: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    relative: dict[str, Any] = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["c2p"]}
    config = DebertaV2Config(vocab_size=60, **relative, **small)
    DebertaV2ForMaskedLM(config).save_pretrained(tmp_path / "deberta")
    decoder = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=60, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(decoder).save_pretrained(tmp_path / "gpt2")
    batch: Any = batch_of(text_examples(wordpiece), range(4)).inputs
    for name, used in (("deberta", "eager"), ("gpt2", "sdpa")):
        model = opened(tmp_path / name, wordpiece, dropout=0.0).eval()
        assert model.model.config._attn_implementation == used
        assert torch.equal(model(batch)[:2], model({key: value[:2] for key, value in batch.items()}))


@pytest.mark.parametrize(
    ("tokens", "embeddings", "match"),
    [
        (30522, 30522, True),  # BERT, ELECTRA, MiniLM
        (50265, 50265, True),  # RoBERTa
        (128000, 128100, True),  # DeBERTa-v3
        (250002, 250037, True),  # a multilingual MiniLM
        (250102, 251000, True),  # mDeBERTa-v3
        (50280, 50368, True),  # ModernBERT
        (50295, 51200, True),  # Phi
        (60, 188, True),
        (60, 189, False),
        (28996, 30522, False),  # BERT cased and uncased
        (300, 30522, False),
        (30523, 30522, False),
    ],
)
def test_embeddings_may_be_rounded_up(tokens, embeddings, match):
    assert fits(tokens, embeddings) == match


def test_models_that_do_not_do_are_one_line(folders, wordpiece, tmp_path):
    from transformers import GPT2Config

    GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=60, pad_token_id=0).save_pretrained(tmp_path / "gpt2")
    pairs = open_tokenizer(str(folders["roberta"]), LENGTH)
    (tmp_path / "empty").mkdir()
    large = opened(None, wordpiece, vocabulary_size=60 + 129)
    save_pretrained(large, wordpiece, tmp_path / "large", ("a", "b", "c"))
    cases = [
        ("bert", pairs, {"pad_id": 0}, rf"knows 60 tokens, the tokenizer has {len(pairs)}: they do not match"),
        (tmp_path / "large", wordpiece, {}, r"knows 189 tokens, the tokenizer has 60: they do not match"),
        ("bert", wordpiece, {"pad_id": 1}, "pads with id 0, the tokenizer with 1: they do not match"),
        ("bert", wordpiece, {"max_length": 13}, "takes at most 12 tokens a text, got max_length 13"),
        ("roberta", pairs, {"max_length": 13}, "takes at most 12 tokens a text, got max_length 13"),
        ("bert", wordpiece, {"class_names": ["a"]}, "expected 3 class names, got 1"),
        (tmp_path / "gpt2", wordpiece, {"masked_head": True}, "a gpt2 has no head of masked language modelling"),
        (tmp_path / "empty", wordpiece, {}, "empty: not the folder of a text classifier"),
        (
            "some/model",
            wordpiece,
            {},
            r"^model 'some/model': .*save_pretrained\(FOLDER\); then set model.name to that folder$",
        ),
    ]
    for name, tokenizer, options, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            opened(folders.get(name, name), tokenizer, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected head task, got 'auxiliary'"):
        opened(None, wordpiece)(batch_of(text_examples(wordpiece), range(2)).inputs, "auxiliary")


@pytest.mark.parametrize("name", [None, "roberta"])
def test_what_is_saved_is_a_pipeline_of_transformers(folders, wordpiece, tmp_path, name):
    from transformers import pipeline

    folder = name and folders[name]
    tokenizer = wordpiece if folder is None else open_tokenizer(str(folder), LENGTH)
    model = opened(folder, tokenizer, masked_head=True).eval()
    names = ("animal", "place", "time")
    save_pretrained(model, tokenizer, tmp_path, names)
    classify: Any = pipeline("text-classification", model=str(tmp_path), top_k=None)
    probabilities = model(batch_of(text_examples(tokenizer), range(4)).inputs).softmax(-1)
    for scores, expected in zip(classify(TEXTS[:4], truncation=True), probabilities, strict=True):
        found = {entry["label"]: entry["score"] for entry in scores}
        assert [found[label] for label in names] == pytest.approx(expected.tolist(), abs=1e-5)
    written = [path for path in tmp_path.iterdir() if path.suffix == ".json"]
    assert len(written) >= 3
    places = [str(tmp_path), *(str(place) for place in folders.values())]
    assert not any(place in path.read_text(encoding="utf-8") for path in written for place in places)


# Hypergradients


def auxiliary_program(tokenizer, attention: str, normalize: bool):
    torch.manual_seed(0)
    model = opened(None, tokenizer, masked_head=True, attention=attention, dropout=0.0).double()
    network = MetaWeightNetwork(1, 6, scale=2.0).double()
    return Auxiliary(model, network, normalize=normalize), model, network


def moved(model) -> dict[str, torch.Tensor]:
    """Its parameters with noise, so that the losses of an untrained model are not all alike."""
    noise = randomized(model, 0, 0.2)
    return {name: p.detach() + noise[name] for name, p in model.named_parameters()}


@pytest.mark.parametrize(("attention", "difference"), [("sdpa", "central"), ("eager", "central"), ("eager", "exact")])
def test_the_hypergradient_of_a_tiny_bert_is_the_exact_one(wordpiece, attention, difference):
    program, model, network = auxiliary_program(wordpiece, attention, normalize=True)
    oracle = auxiliary_program(wordpiece, "eager", normalize=True)[1]  # the fused kernel has no second derivative
    theta = {
        n: p.detach() + d
        for (n, p), d in zip(model.named_parameters(), randomized(model, 0, 0.1).values(), strict=True)
    }
    lam = randomized(network, 1)
    data, masked = text_examples(wordpiece), masked_texts(wordpiece)
    batch = AuxiliaryBatch(batch_of(data, range(6)), masked_batch_of(masked, range(6, 12)))

    def losses(at, part, *head):
        return mean_cross_entropy(functional_call(oracle, at, (part.inputs, *head)), part.labels)

    seen = losses(theta, batch.auxiliary, "auxiliary").detach()[:, None]

    def loss(at, meta):
        weights = functional_call(network, meta, (seen,))
        weighted = weights / weights.mean() * losses(at, batch.auxiliary, "auxiliary")
        return losses(at, batch.task).mean() + weighted.mean()

    check_hypergradient(program, oracle, loss, theta, lam, batch, batch_of(data, range(12, 18)), difference)


def test_both_evaluations_of_a_difference_draw_the_same_dropout(wordpiece):
    """At one seed a model with dropout is one function of θ, whose second derivative a difference approaches."""
    torch.manual_seed(0)
    model = opened(None, wordpiece, attention="eager", dropout=0.3).double().train()
    network = MetaWeightNetwork(1, 6).double()
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    theta, lam = moved(model), randomized(network, 1)
    data = text_examples(wordpiece)
    batch, meta_batch = batch_of(data, range(8)), batch_of(data, range(8, 16))
    options = {"program": program, "base": theta, "meta": lam, "batch": batch, "meta_batch": meta_batch}
    torch.manual_seed(5)
    found = method("sama", alpha=1e-4)(**options, adapt=lambda x: x).gradient
    leaves = {n: p.detach().requires_grad_() for n, p in theta.items()}
    meta = {n: p.detach().requires_grad_() for n, p in lam.items()}
    torch.manual_seed(5)
    v = torch.autograd.grad(program.meta_loss(leaves, meta, meta_batch), list(leaves.values()))
    torch.manual_seed(5)
    g = torch.autograd.grad(program.base_loss(leaves, meta, batch), list(leaves.values()), create_graph=True)
    product = torch.stack([(a * b).sum() for a, b in zip(g, v, strict=True)]).sum()
    slope = torch.autograd.grad(-product, list(meta.values()))
    assert agreement(found, dict(zip(meta, slope, strict=True))) == pytest.approx((1.0, 1.0), abs=1e-5)
    torch.manual_seed(6)
    other = method("sama", alpha=1e-4)(**options, adapt=lambda x: x).gradient
    assert agreement(other, found)[0] < 0.999  # the masks matter


def programs(tokenizer, kind: str):
    data, masked = text_examples(tokenizer), masked_texts(tokenizer)
    torch.manual_seed(0)
    model = opened(None, tokenizer, masked_head=kind == "auxiliary", dropout=0.1)
    teacher = EMATeacher(model, 0.9)
    if kind == "reweight":
        network = MetaWeightNetwork(2, 6)
        program = Reweight(model, network, features=("loss", "uncertainty"), teacher=teacher, normalize=True)
    elif kind == "correct":
        network = CorrectAndWeight(CorrectionNetwork(model.representation_size, 3, 6), MetaWeightNetwork(1, 6))
        program = Correct(model, network, classes=3, head=model.head, normalize=False)
    else:
        network = MetaWeightNetwork(1, 6, scale=2.0)
        program = Auxiliary(model, network, normalize=False)

    def make(indices, generator):
        labelled = LabelledBatch(data.begin(indices, CPU)(), data.labels[indices], indices)
        if kind != "auxiliary":
            return labelled
        inputs = masked.begin(indices, CPU, None, generator)()
        return AuxiliaryBatch(labelled, LabelledBatch(inputs, inputs["masked_labels"], indices))

    def plain(indices, generator):
        return LabelledBatch(data.begin(indices, CPU)(), data.labels[indices], indices)

    return SimpleNamespace(program=program, model=model, network=network, teacher=teacher, make=make, plain=plain)


@pytest.mark.parametrize("kind", ["reweight", "correct", "auxiliary"])
def test_sama_trains_a_bert_and_its_meta_network(wordpiece, kind):
    parts = programs(wordpiece, kind)
    loop = BilevelLoop(
        parts.program,
        parts.model.train(),
        parts.network,
        torch.optim.AdamW(parts.model.parameters(), lr=1e-3),
        torch.optim.Adam(parts.network.parameters(), lr=1e-2),
        ShuffledBatches(len(TEXTS), 8, 0, parts.make),
        ShuffledBatches(len(TEXTS), 8, 1, parts.plain),
        method="sama",
        alpha=0.1,
        unroll_steps=1,
        after_base_step=lambda: parts.teacher.update(parts.model),
    )
    before = copy.deepcopy((parts.model.state_dict(), parts.network.state_dict()))
    results = [loop.step() for _ in range(2)]
    for module, kept in zip((parts.model, parts.network), before, strict=True):
        assert [n for n, p in module.named_parameters() if torch.equal(p, kept[n])] == []
    assert all(result.meta_loss is not None and result.meta_loss.isfinite() for result in results)
    if kind == "auxiliary":
        assert parts.model.masked.get_output_embeddings().weight is parts.model.model.get_input_embeddings().weight
