"""Quality flags of one utterance: a pure function of what was measured. Meanings and thresholds are documented here."""

from __future__ import annotations

from dataclasses import dataclass

from workers.languages import code_of, nearest
from workers.quality.normalize import is_unspaced

CLIPPED_RATIO = 0.001  # one sample in a thousand at full scale is heard as distortion
LOW_SNR_DB = 5.0  # speech barely above its noise; recognisers degrade steeply below
LITTLE_SPEECH = 0.1  # share of an utterance that holds speech
AGREEING_WER, FAR_WER = 0.2, 0.6  # engines that say the same; a text that is another text
MIN_EVIDENCE_WORDS = 3  # fewer words agree, or disagree, by chance
# Speech runs at about 15 characters (English: 2.5 words) a second; auctioneers reach 30. Scripts without word spaces
# carry a syllable or more per character: about 5 a second.
FAST_CHARS_S, SLOW_CHARS_S = 30.0, 1.5
FAST_UNSPACED_S, SLOW_UNSPACED_S = 13.0, 0.5
SURE_LANGUAGE = 0.8  # related languages, and accents, share what is left
MIN_RATE_S = 2.0  # shorter utterances are mostly edges, their rates say nothing

FLAGS: dict[str, str] = {
    "clipped": "at least 0.1% of the samples are at full scale",
    "low_snr": "estimated signal-to-noise ratio below 5 dB",
    "music_or_noise": "under 10% of the audio is speech, or the engine finds no speech (over asr.no_speech_threshold, "
    "0.6) and is unsure of it",
    "empty_transcript": "nothing was heard",
    "repetition": "the transcript loops: it compresses by more than asr.compression_ratio_threshold (2.4)",
    "low_confidence": "mean log-probability per token below asr.logprob_threshold (-1.0)",
    "probable_hallucination": "text that the audio hardly holds: heard where no speech is found, or where the other "
    "engine heard nothing, or looping and too fast to be spoken",
    "engines_disagree": "the two engines differ in more than 60% of the words",
    "likely_wrong_reference": "both engines agree with each other (WER up to 20%), not with the reference (over 60%)",
    "wrong_language": "transcribed in another language than the one given, or the engine takes at least 2 s of audio "
    "for another (probability over 0.8)",
    "too_fast": "the reference (or transcript, without one) has more text than can be spoken in the time",
    "too_slow": "the reference (or transcript, without one) has too little text for the time",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Where a text counts as looping, improbable or heard in silence; by default as in whisper/transcribe.py.

    ``avg_logprob`` is a mean natural log-probability per token.
    """

    compression_ratio: float = 2.4
    avg_logprob: float = -1.0
    no_speech_prob: float = 0.6


WHISPERS = Limits()


@dataclass(frozen=True)
class Evidence:
    """What is known of one utterance; None: not known. Texts are normalised, rates as in :mod:`schemas.tables`.

    ``transcript`` is the chosen one, the engine columns are of its engine. ``second_transcript`` is the second
    engine's, ``agreement_wer`` the WER of the second against the first, ``wer`` and ``second_wer`` theirs against the
    reference.
    """

    duration_s: float
    transcript: str
    reference: str | None = None
    second_transcript: str | None = None
    given_language: str | None = None
    heard_language: str | None = None  # that it was transcribed in
    detected_language: str | None = None  # that the engine took it for
    detected_probability: float | None = None
    snr_db: float | None = None
    clipped_ratio: float | None = None
    speech_ratio: float | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    wer: float | None = None
    second_wer: float | None = None
    agreement_wer: float | None = None


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _others(first: str, second: str) -> bool:
    """Whether two languages are known to differ: an unknown code of three letters may be part of another language."""
    first, second = nearest(first), nearest(second)
    return len(first) == len(second) == 2 and first != second


def _pace(evidence: Evidence) -> tuple[bool, bool]:
    """Whether the text is too long, or too short, for the time it was spoken in."""
    text = evidence.transcript if evidence.reference is None else evidence.reference
    unspaced = is_unspaced(evidence.given_language or evidence.heard_language)
    fast, slow = (FAST_UNSPACED_S, SLOW_UNSPACED_S) if unspaced else (FAST_CHARS_S, SLOW_CHARS_S)
    chars = len(text.split()) if unspaced else len(text)
    if not chars or evidence.duration_s <= 0:
        return False, False
    too_fast = chars > fast * max(evidence.duration_s, 0.5)
    speech_s = evidence.duration_s * (1.0 if evidence.speech_ratio is None else evidence.speech_ratio)
    return too_fast, speech_s >= MIN_RATE_S and chars < slow * speech_s


def flags(evidence: Evidence, limits: Limits = WHISPERS) -> list[str]:
    """The flags of one utterance, names of :data:`FLAGS` in its order.

    >>> flags(Evidence(duration_s=3.0, transcript="thank you for watching", speech_ratio=0.02, clipped_ratio=0.0))
    ['music_or_noise', 'probable_hallucination']
    """
    e = evidence
    heard = len(e.transcript.split())
    unsure = _below(e.avg_logprob, limits.avg_logprob)
    silent = _above(e.no_speech_prob, limits.no_speech_prob)
    no_speech = _below(e.speech_ratio, LITTLE_SPEECH) or (silent and unsure)
    repetition = _above(e.compression_ratio, limits.compression_ratio)
    too_fast, too_slow = _pace(e)
    spoken_too_fast, _ = _pace(Evidence(e.duration_s, e.transcript, heard_language=e.heard_language))
    other_silent = e.second_transcript is not None and not e.second_transcript
    enough = max(heard, len((e.reference or "").split())) >= MIN_EVIDENCE_WORDS
    given, heard_in = code_of(e.given_language), code_of(e.heard_language)
    detected = code_of(e.detected_language)
    sure = e.duration_s >= MIN_RATE_S and _above(e.detected_probability, SURE_LANGUAGE)
    wrong_reference = (
        e.agreement_wer is not None and e.agreement_wer <= AGREEING_WER and heard > 0
        and _above(e.wer, FAR_WER) and _above(e.second_wer, FAR_WER)
    )  # fmt: skip
    found = {
        "clipped": e.clipped_ratio is not None and e.clipped_ratio >= CLIPPED_RATIO,
        "low_snr": _below(e.snr_db, LOW_SNR_DB),
        "music_or_noise": no_speech,
        "empty_transcript": heard == 0,
        "repetition": repetition,
        "low_confidence": unsure,
        "probable_hallucination": heard > 0
        and (no_speech or (other_silent and heard >= MIN_EVIDENCE_WORDS) or (repetition and spoken_too_fast)),
        "engines_disagree": enough and _above(e.agreement_wer, FAR_WER),
        "likely_wrong_reference": enough and wrong_reference,
        "wrong_language": _others(given, heard_in) or (sure and _others(given, detected)),
        "too_fast": too_fast,
        "too_slow": too_slow,
    }
    return [name for name in FLAGS if found[name]]
