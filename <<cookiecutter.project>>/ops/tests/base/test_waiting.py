from ops.base.waiting import until


def test_the_first_acceptable_answer_ends_the_waiting():
    answers = iter([0, 0, 3, 4])
    assert until(lambda: next(answers), 5, 0) == 3


def test_an_answer_may_be_acceptable_in_another_way():
    answers = iter(["not yet", "not yet", ""])
    assert until(lambda: next(answers), 5, 0, accept=lambda said: not said) == ""


def test_time_that_is_up_gives_the_last_answer_after_one_look_at_least():
    assert until(lambda: "", 0) == ""
