"""Trained weights of another project read with our cell: letters to phonemes.

The file is found through the package's list of files; nothing of the package is imported.
"""

import importlib.metadata
import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.recurrent.layer import RecurrentLayer
from models.recurrent.options import CellOptions

GRAPHEMES = ["<pad>", "<unk>", "</s>", *string.ascii_lowercase]
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
SOUNDS = [vowel + stress for vowel in VOWELS.split() for stress in "012"] + CONSONANTS.split()
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted([*SOUNDS, "UW"])]
LAYER = RecurrentLayer(256, CellOptions(cell="gru", recurrent_bias=True))


def cell_params(weights, side: str) -> dict:
    """PyTorch's layout (gates r, z, new in rows, two biases) as ours."""
    first, second = weights[f"{side}_b_ih"], weights[f"{side}_b_hh"].copy()
    inside, second[-256:] = second[-256:].copy(), 0
    unit = {
        "input": {"kernel": weights[f"{side}_w_ih"].T, "bias": first + second},
        "recurrent": weights[f"{side}_w_hh"].T,
        "recurrent_bias": inside,
    }
    return {"params": {"unit": unit}}


def pronounce(weights, word: str) -> str:
    letters = [GRAPHEMES.index(letter) for letter in word] + [GRAPHEMES.index("</s>")]
    x_TBD = jnp.asarray(weights["enc_emb"][letters])[:, None]
    carry, _ = LAYER.apply(cell_params(weights, "enc"), x_TBD)
    params, token, found = cell_params(weights, "dec"), PHONEMES.index("<s>"), []
    step = jax.jit(lambda carry, x_BD: LAYER.apply(params, carry, x_BD, method="step"))
    for _ in range(20):
        carry, h_BH = step(carry, jnp.asarray(weights["dec_emb"][token])[None])
        token = int((np.asarray(h_BH[0]) @ weights["fc_w"].T + weights["fc_b"]).argmax())
        if PHONEMES[token] == "</s>":
            break
        found.append(PHONEMES[token])
    return " ".join(found)


@pytest.mark.g2p
def test_weights_of_g2p_pronounce_with_our_cell():
    package = importlib.metadata.distribution("g2p-en")
    with np.load(str(package.locate_file("g2p_en/checkpoint20.npz"))) as file:
        weights = dict(file)
    assert (len(GRAPHEMES), len(PHONEMES)) == (len(weights["enc_emb"]), len(weights["dec_emb"]))
    assert pronounce(weights, "translation") == "T R AE0 N S L EY1 SH AH0 N"
