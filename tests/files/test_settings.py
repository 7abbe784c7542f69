"The reader of settings: one section or several, one text or a list, sections made in Python, and what is not set."
import copy
import pickle
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st

from skeletongait.files.settings import (
    Checked, SettingsError, entries_of, fits, kept, key, key_rows, key_table, override, read_settings, set_values,
    to_dict, unset)


@dataclass(frozen=True)
class Rule(Checked):
    types:tuple[str,...] = key(('*',), 'patterns')
    names:frozenset[str]|None = key(None, 'exact names')
    kinds:tuple[Literal['a', 'b'],...] = key((), 'kinds')
    top:int = key(1, 'how many', least=1, most=9)


@dataclass(frozen=True)
class Protocol(Checked):
    gallery:Rule = key(Rule(), 'all others')
    conditions:dict[str,Rule] = key({}, 'rules by name')
    tables:tuple[Rule,...] = key((Rule(),), 'tables')
    probe:Rule|None = key(None, 'the probes')

    def __post_init__(self):
        super().__post_init__()
        if not self.tables: raise SettingsError('found none', 'tables')


@dataclass
class Dog:
    kind:Literal['Dog'] = key('Dog', 'the animal')
    weight:float = key(9, 'in kg', least=0, also='mass')


@dataclass
class Cat:
    kind:Literal['Cat', 'Tom'] = key('Cat', 'the animal')
    weight:float = key(4, 'in kg', least=0)
    lives:int = key(None, 'how many are left', least=0, needed=('train',))


@dataclass
class House:
    pets:list[Dog|Cat] = key([], 'who lives there', needed=('test',))
    guard:Dog|Cat|None = key(None, 'who watches it', needed=('train', 'test'))
    wild:dict = key({}, 'plain data')


def message(schema, tree, at=''):
    with pytest.raises(SettingsError) as e:
        read_settings(schema, tree, at)
    return str(e.value)


PETS = [
    ({'kind': 'Cow'}, 'pets[0].kind: found "Cow" (text), expected one of Dog, Cat, Tom'),
    ({'weight': 1}, 'pets[0].kind: missing; expected one of Dog, Cat, Tom'),
    ({'kind': 'Dog', 'lives': 9}, 'pets[0].lives: unknown key; it belongs at pets[].lives (for Tom)'),
    ({'kind': 'Cat', 'lifes': 9}, 'pets[0].lifes: unknown key; did you mean lives?'),
    ({'kind': 'Cat', 'colour': 1}, 'pets[0].colour: unknown key; known here: kind, weight, lives'),
    (None, 'pets[0]: found null, expected a mapping with the key kind'),
]
KEYS = 'expected a mapping with some of the keys types, names, kinds, top'
TEXTS = 'expected text, or a list, each entry text'
KINDS = 'expected one of a, b, or a list, each entry one of a, b'
RULES = [
    ({'conditions': ['x']}, 'p.conditions: found ["x"] (a list), expected a mapping of names to mappings'),
    ({'conditions': {'x': {'type': 'y'}}}, 'p.conditions.x.type: unknown key; did you mean types?'),
    ({'conditions': {'x': 'y'}}, f'p.conditions.x: found "y" (text), {KEYS}'),
    ({'conditions': {1: {}}}, 'p.conditions.1: found the name 1 (a whole number), expected text; write it in quotes'),
    ({'tables': [{}, {'top': 0}]}, 'p.tables[1].top: found 0 (a whole number), expected at least 1 and at most 9'),
    ({'tables': []}, 'p.tables: found none'),
    ({'gallery': None}, f'p.gallery: found null, {KEYS}'),
    ({'kind': 1}, 'p.kind: unknown key; known here: gallery, conditions, tables, probe'),
    ({'conditions': {'x': {'probe': {}}}}, 'p.conditions.x.probe: unknown key; it belongs at p.probe'),
    ({'gallery': {'types': 90}}, f'p.gallery.types: found 90 (a whole number), {TEXTS}; write text in quotes'),
    ({'gallery': {'types': ['a', 1]}}, f'p.gallery.types: found ["a", 1] (a list), {TEXTS}; write text in quotes'),
    ({'gallery': {'types': {}}}, f'p.gallery.types: found {{}} (a mapping), {TEXTS}'),
    ({'gallery': {'kinds': ['a', 'c']}}, f'p.gallery.kinds: found ["a", "c"] (a list), {KINDS}'),
]


@pytest.mark.parametrize('tree, says', PETS)
def test_one_of_several_sections(tree, says):
    assert message(list[Dog|Cat], [tree], 'pets') == says
    assert message(Dog|Cat, tree, 'pets[0]').split(' (for')[0] == says.replace('pets[].', 'pets[0].').split(' (for')[0]


@pytest.mark.parametrize('tree, says', RULES)
def test_sections_in_sections(tree, says):
    assert message(Protocol, tree, 'p') == says


def test_the_whole_is_named_only_where_it_has_a_name():
    dog = {'kind': 'Dog', 'lives': 1}
    assert message(list[Dog|Cat], [dog]) == '[0].lives: unknown key; it belongs at lives (for Tom)'
    says = 'pets: found "Dog" (text), expected a mapping or a list of mappings'
    assert message(list[Dog|Cat], 'Dog', 'pets') == says
    assert message(Dog, {'weight': 'much'}) == 'weight: found "much" (text), expected a number'
    assert message(Dog, [1]) == 'found [1] (a list), expected a mapping with some of the keys kind, weight'


def test_several_sections():
    pets, warnings = read_settings(list[Dog|Cat], [{'kind': 'Dog', 'mass': 3}, {'kind': 'Tom'}], 'pets')
    assert pets == [Dog(weight=3), Cat('Tom')] and warnings == ['pets[0].mass: read as weight']
    assert read_settings(list[Dog|Cat], {'kind': 'Dog'})[0] == [Dog()]    # one is a list of one
    assert read_settings(Dog|Cat, {'kind': 'Cat', 'lives': 7})[0] == Cat(lives=7)
    assert read_settings(Dog|Cat|None, None) == (None, [])
    assert read_settings(House, {'guard': None})[0] == House()
    assert [(o.path, o.case) for o in key_rows(list[Dog|Cat], 'pets')] == [
        ('pets[].kind', 'Dog'), ('pets[].weight', 'Dog'),
        ('pets[].kind', 'Tom'), ('pets[].weight', 'Tom'), ('pets[].lives', 'Tom')]


def test_objects_stay_as_they_are():
    dog, rule = Dog(weight=1), Rule(top=3)
    house, _ = read_settings(House, {'pets': [dog, {'kind': 'Cat'}], 'guard': dog})
    assert house.pets[0] is dog and house.guard is dog and house.pets[1] == Cat()
    assert read_settings(list[Dog|Cat], dog)[0] == [dog]
    assert Protocol(rule, {'x': rule}, (rule, {})).tables == (rule, Rule())
    assert 'expected a mapping with the key kind' in message(House, {'guard': rule})


def test_made_in_python_or_read_is_the_same():
    tree = {'gallery': {'types': 'nm'}, 'conditions': {'x': {'names': ['b', 'a', 'a']}}, 'tables': {'top': 2}}
    made = Protocol(Rule(('nm',)), {'x': {'names': {'a', 'b'}}}, [Rule(top=2)])
    assert read_settings(Protocol, tree)[0] == made == replace(made) == pickle.loads(pickle.dumps(copy.deepcopy(made)))
    assert made.conditions['x'].names == frozenset('ab') and type(made.tables) is tuple
    assert hash(made.gallery) == hash(Rule(['nm']))
    for wrong, says in ((dict(gallery={'top': 0}), 'gallery.top: found 0'), (dict(tables=()), 'tables: found none'),
                        (dict(probe=3), 'probe: found 3'), (dict(conditions=None), 'conditions: found null')):
        with pytest.raises(SettingsError, match=f'^{says}'):
            Protocol(**wrong)
    with pytest.raises(SettingsError, match='^top: found 10'):
        replace(Rule(), top=10)


SCALARS = st.none()|st.booleans()|st.integers(-3, 3)|st.floats()|st.sampled_from(['a', 'b', 'x', ''])
ANY = st.recursive(SCALARS, lambda o: st.lists(o, max_size=3)|st.dictionaries(st.sampled_from('abc'), o, max_size=2))
HINTS = (tuple[str, ...], frozenset[str]|None, tuple[Literal['a', 'b'], ...], tuple[int, int], list[float], str|None)


@given(ANY, st.sampled_from(HINTS))
def test_what_is_kept_fits_and_stays(value, hint):
    if not fits(value, hint): return
    once = kept(value, hint)
    assert fits(once, hint) and (kept(once, hint) == once or value != value)
    if hint == tuple[str, ...]:
        assert once == tuple(entries_of(value)) and all(type(o) is str for o in once)


@given(st.fixed_dictionaries({}, optional=dict(types=ANY, names=ANY, kinds=ANY, top=ANY)))
def test_any_rule_is_made_or_refused_alike(tree):
    def outcome(make):
        try: return make()
        except SettingsError as e: return e.problem, e.path

    tree = {f.name: tree[f.name] for f in fields(Rule) if f.name in tree} # in the order of declaration
    assert outcome(lambda: Rule(**tree)) == outcome(lambda: read_settings(Rule, tree)[0])


def test_not_set():
    says = ['pets: not set; who lives there', 'guard: not set; who watches it']
    assert [str(e) for e in unset(House(), 'test')] == says
    house = House(guard=Cat())
    assert [e.path for e in unset(house, 'train', 'house')] == ['house.guard.lives']
    assert not [*unset(House([Dog()], Cat(lives=0)), 'train')]
    assert {path: value for path, _, value in set_values(house)} == {
        'pets': [], 'guard.kind': 'Cat', 'guard.weight': 4, 'guard.lives': None, 'wild': {}}


def test_tables_of_several_sections():
    lines = key_table(list[Dog|Cat]).splitlines()[2:]
    assert len(lines) == 5
    assert '| `[].weight` | `9` | a number (at least 0) | • | in kg (Dog only; also `mass`) |' in lines
    line = '| `conditions.*.types` | `["*"]` | text, or a list, each entry text | • | patterns |'
    assert line in key_table(Protocol).splitlines()


def test_overrides_find_their_way_through_sections():
    tree: dict[str, Any] = override(House, {}, ['guard.kind=Dog', 'guard.mass=2', 'wild.a.b=1'])
    house, _ = read_settings(House, tree)
    assert house == House(guard=Dog(weight=2), wild={'a': {'b': 1}})
    assert to_dict(house)['guard'] == dict(kind='Dog', weight=2)
