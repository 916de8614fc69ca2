"""Korean particles that depend on the sound a word ends with: 은/는, 이/가, 을/를, 과/와, 으로/로 and their kin."""

from __future__ import annotations

from ablab.contract.failure import ConfigError

#: Particles after a consonant, and their forms after a vowel.
PARTICLES = {
    "은": "는",
    "이": "가",
    "을": "를",
    "과": "와",
    "으로": "로",
    "이라면": "라면",
    "이야": "야",
    "이나": "나",
    "이랑": "랑",
}
_FIRST, _LAST, _FINALS, _L = 0xAC00, 0xD7A3, 28, 8
#: Sound that digits (Sino-Korean) and the names of Latin letters end with, where that is no vowel.
_CONSONANTS = dict.fromkeys("036mnMN", "n") | dict.fromkeys("178lrLR", "l")
#: Numbers of speakers are read in English: one and seven end with a consonant.
_SPEAKER_CONSONANTS = "17"


def ending(word: str) -> str:
    """Return what sound a word ends with: "" for a vowel, "l" for ㄹ, "n" for another consonant.

    Tags are read as their English words: #Person1# ends like one, #Email# like mail.
    """
    bare = word.rstrip("#\"')]. ")
    last = bare[-1:]
    if word.endswith("#") and bare.startswith("#Person"):
        return "n" if last in _SPEAKER_CONSONANTS else ""
    if word.endswith("#") and last.isascii():
        return {"N": "n", "l": "l"}.get(last, "")
    if last and _FIRST <= ord(last) <= _LAST:
        final = (ord(last) - _FIRST) % _FINALS
        return "" if not final else "l" if final == _L else "n"
    return _CONSONANTS.get(last, "")


def with_particle(word: str, particle: str) -> str:
    """Return a word with a particle in the form its ending asks for.

    Args:
        word: any text; digits and Latin letters are judged by how they are read.
        particle: in its form after a consonant, a key of `PARTICLES`.

    Raises:
        ConfigError: there is no such particle.
    """
    if particle not in PARTICLES:
        raise ConfigError(f"no particle {particle!r} that changes; there are {', '.join(PARTICLES)}")
    sound = ending(word)
    if not sound or (particle == "으로" and sound == "l"):
        return word + PARTICLES[particle]
    return word + particle
