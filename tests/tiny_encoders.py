"""Small encoders of every family with drawn weights, which many tests use."""

WORDS = ["bim", "tak", "sel", "ora", "##ora", "##lo", "ven", "quu", "dar", "mip", "lo"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abdeiklmnopqrstuv", "ta", "tak", "Ġtak"]
MPNET_PIECES = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *WORDS]
MERGES = [("t", "a"), ("ta", "k"), ("Ġ", "tak")]
FAMILIES = ["bert", "albert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v2", "modernbert"]


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
    elif family == "deberta-v2":
        config = hf.DebertaV2Config(
            vocab_size=len(pieces), relative_attention=True, pos_att_type=["p2c", "c2p"], **size
        )
    elif family == "modernbert":
        numbers = {f"{name}_token_id": pieces[f"[{name.upper()}]"] for name in ("pad", "cls", "sep")}
        numbers |= {"bos_token_id": numbers["cls_token_id"], "eos_token_id": numbers["sep_token_id"]}
        config = hf.ModernBertConfig(vocab_size=len(pieces), local_attention=8, **size, **numbers)
    elif family == "mpnet":
        tokenizer = hf.MPNetTokenizer(vocab={piece: row for row, piece in enumerate(MPNET_PIECES)})
        config = hf.MPNetConfig(vocab_size=len(MPNET_PIECES), **size)
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
