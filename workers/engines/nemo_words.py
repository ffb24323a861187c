"""Words of NeMo's CTC models from the best path.

They are those of NeMo's own timestamps, by NeMo's own rule of where a word begins. NeMo copies every letter several
times on the way, which takes longer than all else that is done with a batch's outputs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from workers.engines.ctc import BestPath


class SpokenWord(NamedTuple):
    """A word with its times in seconds, as NeMo counts them, and the probability of it (0 to 1)."""

    text: str
    start_s: float
    end_s: float
    probability: float | None


def decoding_of(model: Any) -> Any:
    """NeMo's decoding of a CTC model, or of a hybrid one's CTC head."""
    return getattr(model, "ctc_decoding", model.decoding)


def follows_best_path(model: Any) -> bool:
    """Whether a CTC model writes its most probable labels: it searches no further and asks no language model."""
    search = decoding_of(model).decoding
    return type(search).__name__.startswith("Greedy") and not getattr(search, "fusion_models", None)


class PathWords:
    """Words of a CTC model's best paths, with the tokens and the punctuation of NeMo's ``decoding``.

    A frame is ``stride_s * factor`` seconds: the step of the spectrogram and what the encoder shortens it by.
    """

    def __init__(self, decoding: Any, stride_s: float, factor: int) -> None:
        self.decoding, self.stride_s, self.factor = decoding, stride_s, factor
        self.punctuation = decoding.supported_punctuation or set()
        self.tokenizer_type = decoding.tokenizer_type  # NeMo finds it out from the whole vocabulary
        self._token = lru_cache(maxsize=None)(self._token_of)
        self._text = lru_cache(maxsize=2**16)(lambda tokens: decoding.decode_tokens_to_str(list(tokens)))

    def _token_of(self, label: int) -> tuple[str, str]:
        (token,) = self.decoding.decode_ids_to_tokens([label])
        return token, self.decoding.decode_tokens_to_str([token])

    def __call__(self, path: BestPath) -> list[SpokenWord]:
        """The words of ``path`` in order. NeMo lets a token last from the first frame of the one before to its own
        first frame, and punctuation no time at all."""
        from nemo.collections.asr.parts.utils.timestamp_utils import get_words_offsets

        starts = path.starts()
        if not len(starts):
            return []
        tokens = [self._token(label) for label in path.labels[starts].tolist()]
        begins = np.concatenate(([max(0, starts[0] - 1)], starts[:-1]))
        is_mark = [i > 0 and text != "" and text[0] in self.punctuation for i, (_, text) in enumerate(tokens)]
        ends = np.where(is_mark, begins, starts)
        words = get_words_offsets(  # in places in ``tokens``, in place of frames
            char_offsets=[{"char": text, "start_offset": i, "end_offset": i} for i, (_, text) in enumerate(tokens)],
            encoded_char_offsets=[{"char": token} for token, _ in tokens],
            decode_tokens_to_str=lambda built: self._text(tuple(built)),
            word_delimiter_char=self.decoding.word_seperator,
            tokenizer_type=self.tokenizer_type,
            supported_punctuation=self.decoding.supported_punctuation,
        )
        begin_s, end_s = (frames * self.stride_s * self.factor for frames in (begins, ends))
        logprobs = np.concatenate(([0.0], np.cumsum(np.where(path.emits, path.logprobs, 0.0), dtype=np.float64)))
        counts = np.concatenate(([0], np.cumsum(path.emits)))
        bounds = [*starts.tolist(), len(path.labels)]  # of the frames that emit each token
        found = []
        for word in words:
            first, last = int(word["start_offset"]), int(word["end_offset"])
            a, b = bounds[first], bounds[last + 1]
            probability = math.exp((logprobs[b] - logprobs[a]) / (counts[b] - counts[a]))
            found.append(SpokenWord(word["word"], float(begin_s[first]), float(end_s[last]), probability))
        return found
