from __future__ import annotations

import pytest

from tuner.space.expressions import Expression


@pytest.mark.parametrize(
    ("text", "numbers", "holds"),
    [
        ("a * b <= cores", {"a": 2, "b": 2, "cores": 4}, True),
        ("a * b <= cores", {"a": 2, "b": 3, "cores": 4}, False),
        ("instance_group.count + 1 < 4 - b", {"instance_group.count": 1, "b": 1}, True),
        ("instance_group.count + 1 < 4 - b", {"instance_group.count": 1, "b": 2}, False),
        ("1 <= a <= 4", {"a": 4}, True),
        ("1 <= a <= 4", {"a": 5}, False),
        ("a == -1", {"a": -1}, True),
        ("a > 0.5", {"a": 0.5}, False),
        ("(a + b) * 2 >= 8", {"a": 2, "b": 2}, True),
        # A name without a number: `off`, or the cores of a machine that are unknown.
        ("a * b <= cores", {"a": 100, "cores": 4}, True),
        ("a * b <= cores", {"a": 100, "b": 4}, True),
    ],
)
def test_it_holds_for_numbers(text: str, numbers: dict[str, float], holds: bool) -> None:  # noqa: FBT001
    assert Expression.parse(text).holds(numbers) is holds


def test_the_names_in_order() -> None:
    assert Expression.parse("b.c * a <= cores - b.c").names == ("b.c", "a", "cores")


def test_numbers_replace_names() -> None:
    expression = Expression.parse("instance_group.count * threads <= cores")
    assert expression.with_numbers({"instance_group.count": 2}) == "2 * threads <= cores"
    assert expression.with_numbers({}) == expression.text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a * b <=", "'a [*] b <=' is not an expression"),
        ("a * b", "'a [*] b' is not a comparison"),
        ("a / b <= 2", "'a / b <= 2': 'a / b' is not allowed"),
        ("a ** 9999 <= 2", "is not allowed"),
        ("a != b", "'a != b' has another comparison"),
        ("f(a) <= 2", r"'f\(a\)' is not allowed"),
        ("__import__('os').system('true') <= 2", "is not allowed"),
        ("a[0] <= 2", "is not allowed"),
        ("a <= 'b'", "is not allowed"),
        ("a <= True", "is not allowed"),
        ("a <= 2\nb <= 3", "is not an expression"),
        ("", "is not an expression"),
        ("(" * 300 + "a" + ")" * 300 + " <= 2", "is not an expression"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Expression.parse(text)
    assert "\n" not in str(caught.value)
