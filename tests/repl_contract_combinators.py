"""The part of the contract of a REPL backend that is about functions with many subcalls."""

import json

from repl_driving import Driving, failed

from effects.repls.base import Answer, Paused

LIMIT = Answer(kind="limit", text="9 subcalls take too much")


def says(prompt: str) -> str | Answer:
    """Forecasts are answered as the machine does, prompts by their last line."""
    if prompt.startswith('{"calls"'):
        asked = json.loads(prompt)
        return json.dumps({"subcalls": asked["calls"], "tokens": 1_200, "cost_usd": 0.5})
    return prompt.rstrip().rpartition("\n")[2].upper()


def too_much(prompt: str) -> str | Answer:
    """Nothing fits into the budget."""
    return LIMIT if prompt.startswith('{"calls"') else prompt


def kinds(pauses: list[Paused]) -> list[tuple[str, int]]:
    """Kind and number of the calls of each pause."""
    return [(pause.calls[0].kind, len(pause.calls)) for pause in pauses]


class CombinatorsContract(Driving):
    """`map_chunks`, `reduce_tree`, `classify_all`, `vote`."""

    def test_map_chunks_says_what_it_asks_and_asks_all_at_once(self) -> None:
        pauses, result = self.pauses("print(1)\nprint(map_chunks('who?', ['a', 'b']))", says)
        assert kinds(pauses) == [("forecast", 1), ("subcall", 2)]
        assert pauses[1].parallel
        assert [call.prompt for call in pauses[1].calls] == [
            "Question: who?\nSnippet:\na",
            "Question: who?\nSnippet:\nb",
        ]
        line = "map_chunks: 2 subcalls, about 1,200 tokens, $0.5000"
        assert result.stdout == f"1\n{line}\n['A', 'B']\n"

    def test_reduce_tree_pauses_once_a_level(self) -> None:
        code = "print(reduce_tree([f't{i}' for i in range(9)], 'who?', fan_in=3))"
        pauses, result = self.pauses(code, says)
        assert kinds(pauses) == [("forecast", 1), ("subcall", 3), ("subcall", 1)]
        line = "reduce_tree: at most 4 subcalls in 2 levels, about 1,200 tokens, $0.5000"
        assert result.stdout == f"{line}\nT8\n"

    def test_classify_all_gives_a_label_for_each_item(self) -> None:
        def label(prompt: str) -> str | Answer:
            return says(prompt) if prompt[0] == "{" else "1: good\n2: Bad.\n3: who knows"

        code = "r = classify_all(['x', 'y', 'x', 'z'], ['good', 'bad'])\nprint(r)"
        pauses, result = self.pauses(code, label)
        assert kinds(pauses) == [("forecast", 1), ("subcall", 1)]
        assert result.stdout.splitlines()[1:] == [
            "classify_all: 1 of 4 items got no label (None)",
            "['good', 'bad', 'good', None]",
        ]

    def test_vote_prints_how_they_voted(self) -> None:
        def voter(prompt: str) -> str | Answer:
            return says(prompt) if prompt[0] == "{" else "Oslo" if " 2 of " in prompt else "Rome."

        pauses, result = self.pauses("print(vote('capital?', n=3))", voter)
        assert kinds(pauses) == [("forecast", 1), ("subcall", 3)]
        assert result.stdout.splitlines()[1:] == ["vote: 2 for 'Rome.', 1 for 'Oslo' of 3", "Rome."]

    def test_a_vote_says_which_calls_failed(self) -> None:
        def voter(prompt: str) -> str | Answer:
            return (
                says(prompt) if prompt[0] == "{" else failed("down") if " 2 of " in prompt else "A"
            )

        _, result = self.pauses("print(vote('?', n=3))", voter)
        assert result.stdout.splitlines()[1:] == ["vote: 2 for 'A' of 3; 1 failed: down", "A"]

    def test_a_vote_of_which_more_than_half_failed_is_none(self) -> None:
        def voter(prompt: str) -> str | Answer:
            return says(prompt) if prompt[0] == "{" else "A" if " 2 of " in prompt else LIMIT

        code = f"try:\n    vote('?', n=3)\nexcept {self.subcall_limit_error} as e:\n    print(e)"
        _, result = self.pauses(code, voter)
        assert result.stdout.splitlines()[1].startswith(
            "too few replies for a vote: 2 of 3 subcalls failed"
        )

    def test_more_than_memory_holds_is_counted_and_refused(self) -> None:
        for code in ("vote('q', n=10**9)", "ask_chunks('q' * 10**5, ['a'] * 10**4)"):
            caught = f"try:\n    {code}\nexcept ValueError as e:\n    print(e)"
            assert "that may be asked at once" in self.output(caught, answerer=says)
        code = f"try:\n    vote('q', 10**9)\nexcept {self.subcall_limit_error}:\n    print('no')"
        assert self.output(code, answerer=too_much) == "no\n"

    def test_a_tree_says_which_calls_failed(self) -> None:
        def down(prompt: str) -> str | Answer:
            return says(prompt) if prompt[0] == "{" else failed("down")

        code = "print(reduce_tree(['a', 'b', 'c', 'd'], 'q', 2, on_error='return'))"
        _, result = self.pauses(code, down)
        assert result.stdout.splitlines()[1:] == [
            "reduce_tree: 2 of 2 subcalls failed, each with: down",
            "[ERROR] down",
        ]

    def test_labels_that_differ_in_case_only_are_kept_apart(self) -> None:
        def label(prompt: str) -> str | Answer:
            return says(prompt) if prompt[0] == "{" else "1: us\n2: US\n3: Us"

        _, result = self.pauses("print(classify_all(['x', 'y', 'z'], ['US', 'us']))", label)
        assert result.stdout.splitlines()[-1] == "['us', 'US', None]"

    def test_what_does_not_fit_is_refused_before_the_first_call(self) -> None:
        code = (
            f"try:\n    map_chunks('q', ['a', 'b'])\nexcept {self.subcall_limit_error} as e:\n"
            "    print('caught:', e)"
        )
        pauses, result = self.pauses(code, too_much)
        assert kinds(pauses) == [("forecast", 1)]
        assert result.stdout == f"caught: map_chunks: {LIMIT.text}. Nothing was asked.\n"

    def test_wrong_arguments_ask_nothing(self) -> None:
        for code in ("map_chunks(5, ['a'])", "vote('q', n='3')", "classify_all(['a'], 5)"):
            pauses, result = self.pauses(code, says)
            assert pauses == []
            assert result.error is not None
            assert result.error.kind == "TypeError"

    def test_an_empty_question_is_called_empty(self) -> None:
        pauses, result = self.pauses("map_chunks('', ['a'])", says)
        assert pauses == []
        assert result.error is not None
        assert (result.error.kind, result.error.message) == (
            "ValueError",
            "question is empty: give the text of what to ask",
        )

    def test_their_names_may_be_the_codes_own(self) -> None:
        own = "def vote(answers):\n    return 'mine'"
        assert self.output(own, "print(vote([]))") == "mine\n"
        assert self.output("x = 1", "print(vote('q', n=1))", answerer=says).endswith(
            "(INDEPENDENT ATTEMPT 1 OF 1.)\n"
        )
