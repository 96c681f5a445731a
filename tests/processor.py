"""How this processor rounds, as a digest of activations; `make reference` writes it to `tests/processor.txt`."""

import tempfile

from tsns_lib import extract, load_encoder, load_source
from tsns_lib.store import content_hash


def rounding():
    """sha256 of the activations of some texts: another kind of processor gives other last bits."""
    texts = load_source("miniature:books", limit=40)
    with tempfile.TemporaryDirectory() as store:
        activations = extract(texts, load_encoder(), max_length=64, store=store, progress=False)
    return content_hash([activations.tobytes()])


if __name__ == "__main__":
    print(rounding())
