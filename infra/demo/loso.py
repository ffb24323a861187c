"""Leave one speaker out: train on the others, listen to the one never met, for each of FSDD's speakers in turn.

``python -m infra.demo.loso conformer-espeak.nemo fsdd_train.tar --length 10`` (or ``whisper-espeak.pt``)

Every fold goes on from the same checkpoint, which was trained on espeak-ng voices alone and so has met no speaker.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from infra.demo import evaluate
from infra.demo.clips import Clip, at_speeds, espeak_clips, read_fsdd
from infra.demo.speech import COPIES, FSDD_SHARE, Speech


def fold(start: Path, checkpoint: Path, recorded: Sequence[Clip], synthetic: Sequence[Clip], length: int) -> None:
    """Train ``start`` further on the recordings given, as the bundled checkpoint is, and write ``checkpoint``.

    ``length``: rounds of the Conformer's training, steps of Whisper's.
    """
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    speech = Speech([at_speeds(recorded, COPIES, rng), synthetic], [FSDD_SHARE, 1 - FSDD_SHARE], rng)
    if start.suffix == ".nemo":
        from infra.demo import train_conformer

        conformer = train_conformer.restore(start)
        for progress in train_conformer.train(conformer, speech, length, started=True):
            print(progress, flush=True)
        conformer.save_to(str(checkpoint))
    else:
        from infra.demo import train_whisper

        whisper = train_whisper.Trainee()
        whisper.load(start)
        for progress in train_whisper.train(whisper, speech, train_whisper.going_on(length)):
            print(progress, flush=True)
        whisper.export(checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="the checkpoint trained on espeak-ng voices alone")
    parser.add_argument("fsdd_tar", type=Path)
    parser.add_argument("--length", type=int, required=True, help="rounds (Conformer) or steps (Whisper) per fold")
    parser.add_argument("--espeak-clips", type=int, default=3000)
    parser.add_argument("--every", type=int, default=3, help="score every so many of a speaker's clips")
    parser.add_argument("--speakers", nargs="*", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = read_fsdd(options.fsdd_tar)
    synthetic = espeak_clips(options.espeak_clips, np.random.default_rng(1))
    figures: dict[str, float] = {}
    for speaker in options.speakers or sorted({clip.speaker for clip in clips}):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / f"fold{options.start.suffix}"
            fold(options.start, checkpoint, [c for c in clips if c.speaker != speaker], synthetic, options.length)
            unmet = [clip for clip in clips if clip.speaker == speaker][:: options.every]
            figures[speaker] = evaluate.on_clips(evaluate.load(checkpoint), unmet)
        print(f"WER on {len(unmet)} clips of {speaker}, never met: {figures[speaker]:.1%}", flush=True)
    print(f"mean over {len(figures)} speakers: {np.mean(list(figures.values())):.1%}")


if __name__ == "__main__":
    main()
