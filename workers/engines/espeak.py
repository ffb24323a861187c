"""Text to speech with espeak-ng: a small formant synthesiser of over a hundred languages that needs no model file.

The library and its data come with the ``espeakng-loader`` wheel; it is called through ctypes after espeak-ng's public
header ``speak_lib.h`` (version 1.52), from which the constants below are taken.
"""

from __future__ import annotations

import _ctypes
import ctypes
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from schemas.config import TtsSettings
from schemas.reasons import Reason
from workers.engines.base import Failure, Synthesis

# speak_lib.h: enum espeak_AUDIO_OUTPUT, espeak_PARAMETER, espeak_EVENT_TYPE; flags of espeak_Initialize, espeak_Synth
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_LIST_TERMINATED, _EVENT_WORD = 0, 1

RATE_WPM = (80, 450)  # bounds of the speaking rate, words per minute
_OWN_RATE_WPM = 175  # espeak-ng's default

# espeak-ng is one global synthesiser per process.
_lock = threading.Lock()


class _Event(ctypes.Structure):
    """``espeak_EVENT``; the last field stands for a union of a pointer, a number and a short string."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_uint64),
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _VoiceStruct(ctypes.Structure):
    """``espeak_VOICE``; only the leading fields are read."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.POINTER(ctypes.c_ubyte)),  # (priority byte, name, NUL)*, NUL
        ("identifier", ctypes.c_char_p),
    )


@contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A newly loaded espeak-ng and its sample rate in Hz, unloaded at the end.

    Wave phase, flutter and noise state survive in the library's static variables, even over ``espeak_Terminate``, so
    a text's samples would depend on what was spoken before it. Loading anew (about 5 ms) makes them a function of text
    and voice alone. Raises RuntimeError when the library or its data cannot be loaded.
    """
    import espeakng_loader

    with _lock:
        try:
            library = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise RuntimeError(f"espeak-ng cannot be loaded, reinstall espeakng-loader: {error}") from error
        try:
            library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceStruct))
            library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
            data = str(espeakng_loader.get_data_path()).encode()
            rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _INITIALIZE_DONT_EXIT)
            if rate <= 0:
                raise RuntimeError(f"espeak-ng found no usable data in {data.decode()}, reinstall espeakng-loader")
            library.espeak_ng_SetRandSeed(1)
            yield library, rate
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)


@lru_cache(maxsize=1)
def languages() -> dict[str, str]:
    """Language tag in lower case (``en-us``) to the voice file espeak-ng keeps it in (``gmw/en-US``)."""
    found: dict[str, str] = {}
    with _fresh_library() as (library, _):
        voices = library.espeak_ListVoices(None)
        index = 0
        while voices[index]:
            voice = voices[index].contents
            address = ctypes.addressof(voice.languages.contents)
            while entry := ctypes.string_at(address):  # a priority byte, then the tag
                found.setdefault(entry[1:].decode().lower(), voice.identifier.decode())
                address += len(entry) + 1
            index += 1
    return found


@lru_cache(maxsize=1)
def variants() -> tuple[str, ...]:
    """Names of the voice variants (``f3``, ``whisper``...) that can follow a language after a plus sign."""
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    return tuple(sorted(path.name for path in folder.iterdir()))


@lru_cache(maxsize=1)
def _digest() -> str:
    """blake3 over the library and every data file with its name, so a new wheel is a new model."""
    import blake3
    import espeakng_loader

    root = Path(espeakng_loader.get_data_path())
    digest = blake3.blake3(Path(espeakng_loader.get_library_path()).read_bytes())
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return f"blake3:{digest.hexdigest()}"


def voice_file(voice: str) -> str:
    """``language`` or ``language+variant`` as espeak-ng's voice identifier: ``en-gb+f3`` is ``gmw/en+f3``.

    Raises ValueError, naming what is unknown: espeak-ng itself ignores an unknown variant without a word.
    """
    language, _, variant = voice.partition("+")
    identifier = languages().get(language.lower())
    if identifier is None:
        raise ValueError(f"espeak-ng has no language {language!r}; it has {', '.join(sorted(languages()))}")
    if variant and variant not in variants():
        raise ValueError(f"espeak-ng has no voice variant {variant!r}; it has {', '.join(variants())}")
    return f"{identifier}+{variant}" if variant else identifier


def _pronounceable(text: str) -> bool:
    """Whether there is a letter or a number: espeak-ng would read out the names of lone punctuation marks."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


class EspeakSynthesizer:
    """The :class:`~workers.engines.base.Synthesizer` of espeak-ng.

    ``voice`` is ``language`` or ``language+variant``: ``en-us``, ``en-gb-scotland+f3``. The same text, voice and
    settings give the same samples in any process. Raises ValueError for an unknown voice.

    >>> EspeakSynthesizer("en-us").speak("one two three").sample_rate
    22050
    """

    def __init__(self, voice: str = "en-us", settings: TtsSettings | None = None) -> None:
        voice_file(voice)
        rate = settings.rate if settings else 1.0
        # At the usual rate none is set: the voice's own may differ from the default.
        self.rate_wpm = None if rate == 1 else min(max(round(rate * _OWN_RATE_WPM), RATE_WPM[0]), RATE_WPM[1])
        self.voice = voice
        self.spec = f"espeak:{voice}"
        self.digest = _digest()

    def speak(
        self,
        text: str,
        voice: str | None = None,
        *,
        rate_wpm: int | None = None,
        pitch: int | None = None,
        pitch_range: int | None = None,
    ) -> Synthesis:
        """Speak one text.

        ``rate_wpm`` is 80 to 450 words per minute (default 175); ``pitch`` and ``pitch_range`` are 0 to 100 (default
        50; a range of 0 is monotone). Raises ValueError for an unknown voice, a setting out of bounds, or a text in
        which nothing can be pronounced.
        """
        return self.speak_words(text, voice, rate_wpm=rate_wpm, pitch=pitch, pitch_range=pitch_range)[0]

    def speak_words(
        self,
        text: str,
        voice: str | None = None,
        *,
        rate_wpm: int | None = None,
        pitch: int | None = None,
        pitch_range: int | None = None,
    ) -> tuple[Synthesis, list[float]]:
        """:meth:`speak`, and where each word of the text begins, in seconds, as espeak-ng counts words."""
        settings = (
            (_RATE, "rate_wpm", rate_wpm, RATE_WPM),
            (_PITCH, "pitch", pitch, (0, 100)),
            (_RANGE, "pitch_range", pitch_range, (0, 100)),
        )
        for _, name, value, (low, high) in settings:
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must lie in {low} to {high}, not {value}")
        identifier = voice_file(voice or self.voice)
        if not _pronounceable(text):
            raise ValueError(f"nothing to pronounce in {text!r}")

        blocks: list[np.ndarray] = []
        starts: list[float] = []

        @_SynthCallback
        def collect(samples: Any, count: int, events: Any) -> int:
            if samples and count > 0:
                blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
            index = 0
            while events[index].type != _EVENT_LIST_TERMINATED:
                if events[index].type == _EVENT_WORD:
                    starts.append(events[index].audio_position / 1000)
                index += 1
            return 0

        # Control characters would end the C string (NUL) or change the voice within the text (U+0001).
        spoken = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
        encoded = spoken.encode("utf-8") + b"\0"
        with _fresh_library() as (library, sample_rate):
            library.espeak_SetSynthCallback(collect)
            if library.espeak_SetVoiceByName(identifier.encode()) != 0:
                raise ValueError(f"espeak-ng refused the voice {voice or self.voice!r}")
            for code, _, value, _ in settings:
                if value is not None:
                    library.espeak_SetParameter(code, value, 0)
            status = library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _CHARS_UTF8, None, None)
        if status != 0:
            raise RuntimeError(f"espeak-ng failed on {text!r} with status {status}")
        samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
        if not samples.any():
            raise ValueError(f"nothing to pronounce in {text!r} for the voice {voice or self.voice!r}")
        # It reads out any character, by its name where it has no sound, but for the control characters above.
        silent = "".join(dict.fromkeys(c for c in text if unicodedata.category(c)[0] == "C" and not c.isspace()))
        return Synthesis(samples.astype(np.float32) / 32768, sample_rate, silent), starts

    def synthesize(
        self, texts: Sequence[str], voices: Sequence[str | None], seeds: Sequence[int]
    ) -> list[Synthesis | Failure]:
        """Speak ``texts``, one answer per text, in order; ``seeds`` change nothing, for nothing is drawn at random."""
        answers: list[Synthesis | Failure] = []
        for text, voice, _ in zip(texts, voices, seeds, strict=True):
            try:
                voice_file(voice or self.voice)
            except ValueError as error:
                answers.append(Failure(Reason.UNKNOWN_VOICE, str(error)))
                continue
            try:
                answers.append(self.speak(text, voice, rate_wpm=self.rate_wpm))
            except ValueError as error:
                answers.append(Failure(Reason.NOTHING_PRONOUNCEABLE, str(error)))
        return answers
