"""Voice activity detection: 512 frames of one recording at a time (ours), or one frame of many recordings at a time.

A detector with a state can be batched both ways. Batched across recordings, as Silero's streaming model is, every call
waits for the one before it; along one recording only the LSTM has to, and the convolutions of 512 frames are one call.
Prints audio seconds per CPU second of ours and of the streaming model with 1, 8 and 32 recordings in a batch, and how
far their probabilities lie apart.

    OMP_NUM_THREADS=1 python -m benchmarks.vad fsdd_test.tar --minutes 2 --recordings 32
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.long_form import splice
from infra.demo.clips import read_fsdd
from workers.segment import VAD_RATE, speech_probabilities

FRAME, CONTEXT = 512, 64  # Silero VAD at 16 kHz (silero_vad/utils_vad.py, OnnxWrapper)


def streaming_model() -> onnxruntime.InferenceSession:
    """Silero's streaming model, on one thread."""
    package = importlib.util.find_spec("silero_vad")
    if package is None or package.origin is None:
        raise SystemExit("silero-vad is not installed")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    path = Path(package.origin).parent / "data" / "silero_vad.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def across(model: onnxruntime.InferenceSession, recordings: list[np.ndarray]) -> list[np.ndarray]:
    """Probabilities (frames,) of each recording, frame after frame of all of them at once; short ones are padded."""
    lengths = [-(-len(samples) // FRAME) for samples in recordings]
    frames = np.zeros((len(recordings), CONTEXT + max(lengths) * FRAME), np.float32)
    for row, samples in zip(frames, recordings, strict=True):
        row[CONTEXT : CONTEXT + len(samples)] = samples
    state = np.zeros((2, len(recordings), 128), np.float32)
    found = np.zeros((len(recordings), max(lengths)), np.float32)
    for index in range(max(lengths)):
        piece = frames[:, index * FRAME : (index + 1) * FRAME + CONTEXT]
        values, state = model.run(None, {"input": piece, "state": state, "sr": np.array(VAD_RATE)})
        found[:, index] = values[:, 0]
    return [row[:length] for row, length in zip(found, lengths, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fsdd_tar", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each recording")
    parser.add_argument("--recordings", type=int, default=32)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    clips = read_fsdd(options.fsdd_tar)
    recordings = [splice(clips, options.minutes * rng.uniform(0.5, 1.5), rng)[0] for _ in range(options.recordings)]
    audio_s = sum(map(len, recordings)) / VAD_RATE
    model = streaming_model()
    across(model, [recordings[0][:VAD_RATE]])
    speech_probabilities(recordings[0][:VAD_RATE], VAD_RATE)

    begun = time.process_time()
    ours = [speech_probabilities(samples, VAD_RATE) for samples in recordings]
    print(f"512 frames of a recording: {audio_s / (time.process_time() - begun):.0f} times real time per CPU second")
    in_order = sorted(range(len(recordings)), key=lambda index: len(recordings[index]))
    for size in (1, 8, 32):
        begun = time.process_time()
        apart = 0.0
        for start in range(0, len(in_order), size):
            batch = in_order[start : start + size]
            for index, peer in zip(batch, across(model, [recordings[one] for one in batch]), strict=True):
                apart = max(apart, float(np.abs(peer - ours[index]).max()))
        speed = audio_s / (time.process_time() - begun)
        print(f"a frame of {size} recordings: {speed:.0f} times; probabilities at most {apart:.1e} from ours")


if __name__ == "__main__":
    main()
