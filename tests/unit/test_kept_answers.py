"""Kept answers end at their time, and the least recently used one makes room."""

from handsell.serving.reuse.kept_answers import Kept, KeptAnswers


def keep(answers: KeptAnswers, key: bytes, made_us: int = 0, size: int = 10) -> None:
    answers.put(key, Kept(key, made_us, made_us + 100, size))


def test_an_answer_is_kept_until_its_end():
    answers = KeptAnswers(1_000)
    keep(answers, b"a", made_us=50)
    assert answers.find(b"a", 149).value == b"a" and answers.find(b"b", 60) is None
    assert answers.find(b"a", 150) is None and len(answers) == 0 and answers.size == 0


def test_an_answer_from_the_future_is_dropped():
    answers = KeptAnswers(1_000)
    keep(answers, b"a", made_us=50)
    assert answers.find(b"a", 49) is None and not len(answers)


def test_the_least_recently_used_answer_makes_room():
    answers = KeptAnswers(30)
    for key in (b"a", b"b", b"c"):
        keep(answers, key)
    assert answers.find(b"a", 1)
    keep(answers, b"d")
    assert answers.find(b"b", 1) is None and answers.find(b"a", 1) and answers.size == 30
    keep(answers, b"e", size=31)
    assert len(answers) == answers.size == 0


def test_an_answer_replaces_the_one_under_its_key():
    answers = KeptAnswers(30)
    keep(answers, b"a", size=20)
    keep(answers, b"a", size=15)
    assert answers.size == 15 and len(answers) == 1


def test_what_has_ended_leaves_when_another_comes():
    answers = KeptAnswers(1_000)
    keep(answers, b"a")
    keep(answers, b"b", made_us=100)
    assert len(answers) == 1 and answers.size == 10
