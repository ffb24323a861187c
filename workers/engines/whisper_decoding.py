"""openai-whisper's own decoding of a batch of windows, with a language and a random seed of its own for every row.

The library decodes a batch in lockstep but knows one language per batch, one random state per process, beams of one
window at a time, and loops in Python over the rows for the timestamp rules. The classes here replace these pieces and
nothing else: filters, masked tokens, stopping, beams and scoring stay the library's (``whisper.decoding`` of 20250625).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.decoding import (
    ApplyTimestampRules,
    DecodingOptions,
    DecodingResult,
    DecodingTask,
    GreedyDecoder,
    LogitFilter,
    SuppressTokens,
)
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer


def most_probable_languages(logits: Tensor, tokenizer: Tokenizer) -> list[tuple[str, float]]:
    """The most probable language of each row, and its probability among all languages, as of
    ``whisper.decoding.detect_language``; ``logits`` (batch, vocabulary) are those of the start-of-transcript token."""
    best = logits[:, list(tokenizer.all_language_tokens)].float().softmax(dim=-1).max(dim=-1)
    codes = tokenizer.all_language_codes
    return [(codes[at], rate) for at, rate in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


@contextmanager
def repeated_keys(model: Whisper, times: int) -> Iterator[None]:
    """Give every window's keys and values to ``times`` rows, computed once: the beams of a window hear the same."""

    def repeat(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return output.repeat_interleave(times, dim=0)

    attentions = [block.cross_attn for block in model.decoder.blocks] if times > 1 else []
    hooks = [part.register_forward_hook(repeat) for one in attentions for part in (one.key, one.value)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class TimestampRules(LogitFilter):
    """``ApplyTimestampRules`` for all rows at once: the same masks without a Python loop over the batch."""

    def __init__(self, rules: ApplyTimestampRules) -> None:
        self.sample_begin = rules.sample_begin
        self.eot = rules.tokenizer.eot
        self.begin = rules.tokenizer.timestamp_begin
        self.no_timestamps = rules.tokenizer.no_timestamps
        self.last_initial = rules.max_initial_timestamp_index

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Mask ``logits`` (batch, vocabulary) in place, given all ``tokens`` so far (batch, length)."""
        begin = self.begin
        if self.no_timestamps is not None:
            logits[:, self.no_timestamps] = -np.inf
        sampled = tokens[:, self.sample_begin :]
        if sampled.shape[1] == 0:
            logits[:, :begin] = -np.inf  # the first token is a timestamp
            if self.last_initial is not None:
                logits[:, begin + self.last_initial + 1 :] = -np.inf
        else:
            stamps = sampled >= begin
            last = stamps[:, -1]
            pair = stamps[:, -2] if sampled.shape[1] > 1 else torch.ones_like(last)
            # after a pair (or the first timestamp) text must follow; after a single one, a timestamp or the end
            logits[:, begin:].masked_fill_((last & pair)[:, None], -np.inf)
            logits[:, : self.eot].masked_fill_((last & ~pair)[:, None], -np.inf)
            # timestamps never decrease, and a segment has a length: rows without any keep the whole range
            latest = torch.where(stamps, sampled, begin - 1).amax(dim=1)
            first_allowed = torch.where((last & ~pair) | (latest < begin), latest, latest + 1)
            codes = torch.arange(begin, logits.shape[1], device=logits.device)
            logits[:, begin:].masked_fill_(codes < first_allowed[:, None], -np.inf)
        # where a timestamp of any kind is more probable than every text token, it must be one
        logprobs = F.log_softmax(logits.float(), dim=-1)
        stamped = logprobs[:, begin:].logsumexp(dim=-1) > logprobs[:, :begin].amax(dim=-1)
        logits[:, :begin].masked_fill_(stamped[:, None], -np.inf)


class Suppressed(LogitFilter):
    """``SuppressTokens`` whose tokens lie on the device: a list would be sent there, and waited for, at every step."""

    def __init__(self, rule: SuppressTokens, device: torch.device) -> None:
        self.tokens = torch.tensor(rule.suppress_tokens, dtype=torch.long, device=device)

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        logits.index_fill_(1, self.tokens, -np.inf)


class SeededSampler(GreedyDecoder):
    """Sampling whose draws belong to the row: its temperature and a stream of uniform numbers, inverted through its
    own CDF."""

    def __init__(self, eot: int, temperatures: Tensor, uniforms: Tensor) -> None:
        super().__init__(1.0, eot)
        self.temperatures = temperatures  # (batch, 1)
        self.uniforms = uniforms  # (batch, steps), float64
        self.step = 0

    def reset(self) -> None:
        self.step = 0

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only."""
        self.temperatures, self.uniforms = self.temperatures[rows], self.uniforms[rows]

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        cumulative = (logits.float() / self.temperatures).softmax(dim=-1).double().cumsum(dim=-1)
        draws = self.uniforms[:, self.step, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, draws, right=True).clamp_max_(logits.shape[-1] - 1)[:, 0]
        self.step += 1
        logprobs = F.log_softmax(logits.float(), dim=-1)
        ended = tokens[:, -1] == self.eot
        sum_logprobs += logprobs.gather(1, chosen[:, None])[:, 0] * ~ended
        chosen = torch.where(ended, self.eot, chosen)
        return torch.cat([tokens, chosen[:, None]], dim=-1), bool((chosen == self.eot).all())


class BatchDecodingTask(DecodingTask):
    """One pass over a batch of encoded windows.

    ``languages`` holds one code per row; ``draws`` are what a :class:`SeededSampler` takes, where one is to sample.
    Where the windows have no prompt, ``heard`` then holds the most probable language of each and its probability.
    """

    def __init__(
        self, model: Whisper, options: DecodingOptions, languages: Sequence[str], draws: tuple[Tensor, ...]
    ) -> None:
        super().__init__(model, options)
        self.languages, self.heard = list(languages), list[tuple[str, float]]()
        if draws:
            self.decoder = SeededSampler(self.tokenizer.eot, *draws)
        self.logit_filters: list[LogitFilter] = [self._faster(rule) for rule in self.logit_filters]

    def _faster(self, rule: LogitFilter) -> LogitFilter:
        if isinstance(rule, SuppressTokens):
            return Suppressed(rule, self.model.device)
        return TimestampRules(rule) if isinstance(rule, ApplyTimestampRules) else rule

    def _get_audio_features(self, mel: Tensor) -> Tensor:
        """What is given is encoded, in a window of any length; the library wants a row for every beam."""
        return mel.repeat_interleave(self.n_group, dim=0) if self.n_group > 1 else mel

    def _detect_language(self, audio_features: Tensor, tokens: Tensor) -> tuple[list[str], None]:
        """Write every row's own language token; English-only models have none."""
        if self.model.is_multilingual:
            codes = [self.tokenizer.to_language_token(language) for language in self.languages]
            tokens[:, self.sot_index + 1] = torch.tensor(codes)
        return self.languages, None

    def _main_loop(self, audio_features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Any]:
        """The library's loop; once half of the rows have ended, the others go on alone, where they are no beams."""
        with repeated_keys(self.model, self.n_group):
            return self._loop(audio_features[:: self.n_group], tokens)

    def _loop(self, audio_features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        batch, device, eot = tokens.shape[0], tokens.device, self.tokenizer.eot
        all_tokens = torch.full((batch, self.sample_begin + self.sample_len + 1), eot, device=device)
        all_sums = torch.zeros(batch, device=device)
        rows = torch.arange(batch, device=device)
        sums = torch.zeros(batch, device=device)
        no_speech: list[float] = [np.nan] * batch
        try:
            for step in range(self.sample_len):
                logits = self.inference.logits(tokens, audio_features)
                if step == 0:
                    first = logits[:, self.sot_index].float()
                    if self.tokenizer.no_speech is not None:
                        no_speech = first.softmax(dim=-1)[:, self.tokenizer.no_speech].tolist()
                    if self.model.is_multilingual and self.sot_index == 0:  # after a prompt they would be others
                        self.heard = most_probable_languages(first[:: self.n_group], self.tokenizer)
                logits = logits[:, -1]
                for rule in self.logit_filters:
                    rule.apply(logits, tokens)
                tokens, completed = self.decoder.update(tokens, logits, sums)
                if completed or tokens.shape[-1] > self.n_ctx:
                    break
                if self.options.beam_size is not None:
                    continue
                alive = (tokens[:, -1] != eot).nonzero()[:, 0]
                if 2 * len(alive) <= len(rows):
                    all_tokens[rows, : tokens.shape[1]], all_sums[rows] = tokens, sums
                    rows, tokens, sums = rows[alive], tokens[alive], sums[alive]
                    self._keep(alive)
            all_tokens[rows, : tokens.shape[1]], all_sums[rows] = tokens, sums
        finally:
            self.inference.cleanup_caching()
        return all_tokens, all_sums, no_speech

    def _keep(self, rows: Tensor) -> None:
        """Shrink the key/value cache and the sampler to ``rows``; the hooks go on with the same dictionary."""
        cache = self.inference.kv_cache
        for module in cache:
            cache[module] = cache[module][rows]
        if isinstance(self.decoder, SeededSampler):
            self.decoder.keep(rows)


def decode_batch(
    model: Whisper,
    features: Tensor,
    options: DecodingOptions,
    languages: Sequence[str],
    temperatures: Sequence[float],
    seeds: Sequence[int],
) -> list[DecodingResult]:
    """Decode ``features``, encoded windows of shape (batch, places, n_audio_state), one result per row.

    ``temperatures``, one per row, are all 0 or all above; then ``seeds`` fix the draws, row by row. Of beam search, as
    many windows go at once as their beams need no more memory for keys and values than all windows do without.
    ``language_probs`` of the results hold the most probable language, whatever was given; None after a prompt and of
    English-only models.
    """
    results: list[DecodingResult] = []
    draws = _draws(model, options, temperatures, seeds) if any(temperatures) else ()
    size = max(1, len(features) // (options.beam_size or 1))
    for start in range(0, len(features), size):
        task = BatchDecodingTask(model, options, languages[start : start + size], draws)
        found = task.run(features[start : start + size])
        heard: list[dict[str, float] | None] = [dict([one]) for one in task.heard] or [None] * len(found)
        results += [replace(one, language_probs=probs) for one, probs in zip(found, heard, strict=True)]
    return [replace(one, temperature=value) for one, value in zip(results, temperatures, strict=True)]


def _draws(
    model: Whisper, options: DecodingOptions, temperatures: Sequence[float], seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    steps = options.sample_len or model.dims.n_text_ctx // 2
    uniforms = np.stack([np.random.default_rng(seed).random(steps) for seed in seeds])
    heat = torch.tensor(temperatures, dtype=torch.float32, device=model.device)[:, None]
    return heat, torch.from_numpy(uniforms).to(model.device)
