"""What a template writes is what Jinja itself would write, in the environment that chat templates are made for."""

# ruff: noqa: E501 - one template a line

from __future__ import annotations

import json
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from local_llms.catalog.schema import Template
from local_llms.errors import TemplateError
from local_llms.prompts import render, text_of

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "one two\nthree"},
    {"role": "assistant", "content": "<think>hm</think>yes", "extra": {"items": [3, 1, 2], "n": None, "f": 1.5}},
    {"role": "user", "content": "Über 🦙"},
]
TOOLS = [{"name": "b", "args": {"x": {"type": "int"}, "Y": {"type": "str"}}}, {"name": "A", "args": {}}]

SOURCES = [
    # white space
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "  {% if true %}  \n  b{%- endif -%}  \n c",
    "{#- x -#} y {%- raw %} {{ z }} {% endraw -%} w",
    "x\n\n",
    # output and literals
    "{{ 1 }}{{ 1.5 }}{{ 1e3 }}{{ true }}{{ none }}{{ missing }}{{ 'a' 'b' }}{{ [1, 'x', none] }}{{ {'a': (1,)} }}{{ () }}",
    "{{ 1_000 }} {{ 0x1f }} {{ 'tab\\there \\u00e9' }}",
    # arithmetic and logic
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ 2 ** 5 }} {{ 2 ** -1 }} {{ 7 / 2 }} {{ -3 }} {{ +3 }} {{ 1 + 2 * 3 }}",
    "{{ 'a' * 3 }}{{ 3 * 'b' }}{{ [1] * 2 }}{{ 'a' * -1 }}{{ [1] + [2] }}{{ (1,) + (2,) }}",
    "{{ not 1 }} {{ 1 and 0 }} {{ 0 or 'x' }} {{ 1 if 0 }} {{ 1 if 0 else 2 }}",
    "{{ 1 < 2 < 3 }} {{ 3 > 2 == true }} {{ 'a' < 'b' }} {{ [1] < [2] }} {{ 1 == 1.0 }} {{ 'a' != 'b' }} {{ none == missing }}",
    "{{ 'a' in 'abc' }} {{ 1 in [1] }} {{ 'x' not in {'x': 1} }} {{ 2 in range(3) }} {{ 1 in missing }}",
    "{{ 1 ~ 'a' ~ none ~ missing ~ [1] }}",
    # names, attributes, items, slices
    "{{ messages[0].content }}{{ messages[0]['content'] }}{{ messages[-1].content }}{{ messages[99] }}{{ messages.foo }}",
    "{{ messages[2].extra.items }}".replace("extra.items", "extra['items']"),
    "{{ messages[2].extra.items is callable }} {{ messages[2]['extra']['items'][1:] }} {{ messages[2].extra.f }}",
    "{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[9] }}{{ 'abcdef'[1:5:2] }}{{ 'abc'[::-1] }}{{ (1, 2, 3)[:2] }}{{ 'x'.foo }}",
    "{{ {'a': 1}.a }}{{ {'a': 1}['a'] }}{{ {'a': 1}.b }}{{ {1: 'i'}[1] }}{{ {'a': 1}[[1]] }}",
    # methods
    "{{ ' ab '.strip() }}|{{ 'xxa'.lstrip('x') }}|{{ 'axx'.rstrip('x') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}",
    "{{ 'a-b-c'.rsplit('-', 1) }}{{ 'a\nb\n'.splitlines() }}{{ 'aXbXc'.partition('X') }}{{ 'aXbXc'.rpartition('X') }}",
    "{{ 'aba'.replace('a', 'x') }}{{ 'aba'.replace('a', 'x', 1) }}{{ 'aba'.count('a') }}{{ 'aba'.find('b') }}{{ 'aba'.rfind('z') }}",
    "{{ 'Ab'.upper() }}{{ 'Ab'.lower() }}{{ 'ab cd'.title() }}{{ 'aB'.capitalize() }}{{ 'aB'.swapcase() }}{{ 'ß'.casefold() }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'bc')) }}{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ 'ab'.removeprefix('a') }}",
    "{{ ','.join(['a', 'b']) }}{{ '{} {x} {{}}'.format(1, x='y') }}{{ '{1}{0}'.format('a', 'b') }}{{ 'abc'.removesuffix('bc') }}",
    "{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.keys() | list }}{{ {'a': 1}.values() | list }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}",
    # filters
    "{{ ' a ' | trim }}|{{ 'xax' | trim('x') }}|{{ 'abc' | length }}|{{ [1] | count }}|{{ missing | length }}",
    "{{ 'aB c' | upper }}{{ 'aB c' | lower }}{{ \"it's a-b (c)\" | title }}{{ 'aB' | capitalize }}{{ 'aab' | replace('a', 'x', 1) }}",
    "{{ missing | default('d') }}{{ '' | default('d') }}{{ '' | default('d', true) }}{{ none | d('x') }}",
    "{{ [1, 2] | first }}{{ [1, 2] | last }}{{ [] | first }}{{ 'ab' | list }}{{ [1, 2] | join('-') }}{{ [1, none] | join(',') }}",
    "{{ tools | map(attribute='name') | join(',') }}{{ ['a', 'b'] | map('upper') | join }}{{ tools | map(attribute='zz', default='?') | join }}",
    "{{ [0, 1, 2] | select | list }}{{ [0, 1, 2] | select('odd') | list }}{{ [0, 1] | reject | list }}{{ [3, 4] | reject('gt', 3) | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('extra') | list | length }}",
    "{{ messages | selectattr('extra', 'defined') | map(attribute='extra.f') | first }}{{ none | selectattr('x') | list }}",
    "{{ [3, 1, 2] | sort }}{{ ['b', 'A'] | sort }}{{ ['b', 'A'] | sort(case_sensitive=true) }}{{ [1, 2] | sort(reverse=true) }}",
    "{{ tools | sort(attribute='name') | map(attribute='name') | join }}{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'A': 2} | dictsort(by='value') }}",
    "{{ ['a', 'A', 'b'] | unique | list }}{{ [1, 2] | reverse | list }}{{ 'abc' | reverse }}{{ [1, 2] | sum }}{{ tools | map(attribute='name') | list }}",
    "{{ [1, 3, 2] | max }}{{ ['b', 'A'] | min }}{{ {'a': 1} | items | list }}{{ missing | items | list }}{{ 'a b' | wordcount }}",
    "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent('>>', blank=true) }}|{{ 'a\n' | indent }}",
    "{{ '12' | int }}{{ 'x' | int }}{{ 'x' | int(9) }}{{ '3.7' | int }}{{ 'ff' | int(base=16) }}{{ 2.9 | int }}{{ '1.5' | float }}{{ 'x' | float }}",
    "{{ -3 | abs }}{{ 2.567 | round(1) }}{{ 2.1 | round(method='ceil') }}{{ 2.9 | round(0, 'floor') }}{{ 7 | string }}{{ [1] | string }}",
    "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ {'b': 1, 'a': '<é&>'} | tojson(sort_keys=true, separators=(',', ':')) }}{{ 'é' | tojson(ensure_ascii=true) }}",
    # tests
    "{{ missing is defined }}{{ none is defined }}{{ none is none }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is sequence }}{{ 'a' is iterable }}",
    "{{ 1 is number }}{{ 1.0 is float }}{{ true is integer }}{{ true is boolean }}{{ 1 is true }}{{ 3 is odd }}{{ 4 is even }}{{ 6 is divisibleby 3 }}",
    "{{ 1 is eq 1 }}{{ 1 is ne 2 }}{{ 1 is lt(2) }}{{ 2 is ge 2 }}{{ 'a' is in ['a'] }}{{ 'a' is not in 'b' }}{{ none is sameas none }}{{ 'A' is upper }}",
    "{{ range is callable }}{{ 1 is not string }}{{ missing is undefined }}{{ 1 is iterable }}",
    # statements
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }};{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{{ loop.depth }};{% endfor %}",
    "{% for x in [] %}a{% else %}empty{% endfor %}{% for x in [1] %}a{% else %}b{% endfor %}{% for x in missing %}a{% else %}none{% endfor %}",
    "{% for x in range(6) if x % 2 %}{{ x }}{{ loop.last }}{% endfor %}{% for x in range(3) if x > 9 %}{% else %}no{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for c in 'ab' %}{{ c }}.{% endfor %}{% for k in {'x': 1} %}{{ k }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth0 }}{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [3] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% set a, b = 'pq' %}{{ a }}{{ b }}",
    "{% set ns = namespace(n=0, l=[]) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.n }}{{ ns.l }}{{ ns.zz }}",
    "{% set x %}a{{ 1 }}{% set y = 2 %}{% endset %}{{ x }}{{ y }}{% set z | upper %}abc{% endset %}{{ z }}",
    "{% if 0 %}a{% elif '' %}b{% elif [0] %}c{% else %}d{% endif %}{% if none %}e{% endif %}",
    "{% macro m(a, b='B', c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m.name }}{{ m.arguments }}",
    "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}{{ m(*[1]) }}{{ m(**{'n': 0}) }}",
    "{% macro box(t) %}[{{ t }}:{{ caller('x') }}]{% endmacro %}{% call(v) box('T') %}in {{ v }}{% endcall %}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 3 %}{% endmacro %}{{ m() }}{% set x = 2 %}{{ m() }}{{ x }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}{% filter replace('a', 'c') | upper %}a{% endfilter %}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% set a = 4 %}{% endwith %}{{ a }}",
    "{{ dict(a=1, b=2) }}{{ dict({'x': 1}, y=2) }}{{ range(3) | list }}{{ range(5, 1, -2) | list }}",
    "{% if missing is defined and missing.foo %}a{% endif %}{{ (missing or {}).foo }}{{ 'x' if missing }}",
    "{% for m in messages %}{% if m.content is string %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endif %}{% endfor %}",
    "{% for m in messages[1:] %}{{ m['role'] | upper }}{% endfor %}{{ messages | length }}{{ messages[0]['content'] | trim }}",
    "{% if false %}{{ 1 | unknown_filter }}{% endif %}ok",
    # errors
    "{{ missing.foo }}",
    "{{ missing() }}",
    "{{ missing + 1 }}",
    "{{ 'a' + 1 }}",
    "{{ 1 + none }}",
    "{{ 1 < 'a' }}",
    "{{ 1 in 1 }}",
    "{{ [].append(1) }}",
    "{{ {}.update({}) }}",
    "{{ 1 | unknown_filter }}",
    "{{ 1 is unknown_test }}",
    "{{ raise_exception('no') }}",
    "{% for x in 1 %}{% endfor %}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}",
    "{{ 'x'() }}",
    "{{ ''.__class__.__mro__ }}",
    "{% set x.y = 1 %}",
    "{% set a, b = [1] %}",
    "{{ {[1]: 2} }}",
    "{{ 1 // 0 }}",
    "{{ none | length }}",
    "{% if %}",
    "{% for x in [1] %}",
    "{{ 'a' | trim(1, 2, 3) }}",
    "{{ range(10 ** 9) }}",
]


def jinja(source: str) -> str | None:
    """What Jinja writes; None where it raises."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> None:
        raise RuntimeError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    try:
        return environment.from_string(source).render(messages=MESSAGES, tools=TOOLS, documents=None, input=None)
    except Exception:
        return None


@pytest.mark.parametrize("source", SOURCES)
def test_writes_what_jinja_writes(source: str) -> None:
    expected = jinja(source)
    if expected is None:
        with pytest.raises(TemplateError):
            render(Template(name="test", source=source), MESSAGES, tools=TOOLS)
    else:
        assert text_of(render(Template(name="test", source=source), MESSAGES, tools=TOOLS)) == expected


def test_the_sources_cover_both_outcomes() -> None:
    outcomes = [jinja(source) for source in SOURCES]
    assert outcomes.count(None) == 26
    assert len(SOURCES) > 90
