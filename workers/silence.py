"""The silence guard: no text without speech to have it from."""

from __future__ import annotations

import math
from dataclasses import replace

from schemas.config import Recipe
from workers.engines.base import Transcription
from workers.segment import speech_share
from workers.work import Utterance, Work

# Mean log-probability, that of 90%, below which a text needs speech to stand on; and the length from which every text
# does. The bundled Whisper is 98% sure of a digit in a dog's bark of 5 s. In shorter clips the detector may overhear a
# lone word: were all looked at, two of FSDD's 250 test clips would lose theirs.
UNSURE_LOGPROB = math.log(0.9)
PLAIN_S = 2.0


class SilenceGuard:
    """Takes back texts of clips in which voice activity detection hears no speech at all.

    Clips from :data:`PLAIN_S` on are listened to before any engine is, among the CPU stages: nearly all of them get a
    text and would be later, while the engine's GPU waits (the detector hears 140 s of audio a second and core). Of
    shorter ones only those in doubt are, once their text is there.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.active, self.rate = recipe.asr.silence_guard, recipe.audio.sample_rate

    def measure(self, work: Work) -> Work:
        """Note the share of speech in the longer clips; utterances that voice activity detection has cut have one."""
        for utterance in work.utterances if self.active else []:
            if len(utterance.raw) >= PLAIN_S * self.rate:
                self._share(utterance)
        return work

    def check(self, utterance: Utterance, answer: Transcription) -> Transcription:
        """``answer``, without its words where the raw audio of ``utterance`` holds no speech to have them from."""
        logprob = answer.avg_logprob
        unsure = logprob is not None and logprob < UNSURE_LOGPROB  # a transducer tells nothing of how sure it is
        if not (self.active and answer.text) or not (unsure or len(utterance.raw) >= PLAIN_S * self.rate):
            return answer
        return answer if self._share(utterance) else replace(answer, text="", words=())

    def _share(self, utterance: Utterance) -> float:
        if "speech_ratio" not in utterance.levels:
            utterance.levels["speech_ratio"] = speech_share(utterance.raw, self.rate)
        return utterance.levels["speech_ratio"]
