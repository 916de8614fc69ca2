"""Questions about pictures, generated from the bundled emoji, in LLaVA's format and in those of published benchmarks.

`things` says what is asked about and divides it, so that no thing of the test questions is seen in training,
`scenes` composes pictures, `asking` makes turns, `captions` makes captions and texts, `rows` puts rows together, and
`files` writes everything.
"""

from ablab.data.emoji_questions.files import BENCHMARKS, SETS, Sizes, write_emoji_questions

__all__ = ["BENCHMARKS", "SETS", "Sizes", "write_emoji_questions"]
