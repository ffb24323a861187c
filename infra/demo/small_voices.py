"""Small voices with random weights, of the libraries' own classes and as the libraries save them.

``python -m infra.demo.small_voices FOLDER`` writes ``vits/`` (transformers' ``VitsModel`` with its tokenizer, three
speakers), ``fastpitch.nemo`` (two speakers) and ``hifigan.nemo``. They say nothing anyone could understand; they load,
batch and sound through the same code as real ones.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz '"


def vits(folder: Path, speakers: int = 3) -> Path:
    """A ``VitsModel`` of width 16 at 16 kHz that spells letters, saved in ``folder``."""
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {"<pad>": 0, **{letter: index for index, letter in enumerate(LETTERS, 1)}, "<unk>": len(LETTERS) + 1}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    VitsTokenizer(str(folder / "vocab.json"), phonemize=False, is_uroman=False).save_pretrained(folder)
    config = VitsConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
        flow_size=16, spectrogram_bins=33, prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=2,
        posterior_encoder_num_wavenet_layers=2, duration_predictor_filter_channels=16, depth_separable_num_layers=2,
        duration_predictor_num_flows=2, upsample_initial_channel=32, resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]], num_speakers=speakers, speaker_embedding_size=8, sampling_rate=16_000,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        VitsModel(config).save_pretrained(folder)
    return folder


def fastpitch(path: Path, speakers: int = 2) -> Path:
    """The digit voice's FastPitch, untrained, whose letters last six frames or so."""
    from infra.demo.voice_models import fastpitch as new
    from infra.demo.voice_models import save

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = new(speakers=speakers)
        with torch.no_grad():
            model.fastpitch.duration_predictor.fc.bias.fill_(math.log(6))
        save(model, path)
    return path


def hifigan(path: Path) -> Path:
    """The digit voice's HiFi-GAN, untrained and a quarter as wide."""
    from infra.demo.voice_models import hifigan as new
    from infra.demo.voice_models import save

    with torch.random.fork_rng():
        torch.manual_seed(3)
        save(new(channels=16), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    vits(folder / "vits")
    fastpitch(folder / "fastpitch.nemo")
    hifigan(folder / "hifigan.nemo")


if __name__ == "__main__":
    main()
