"Print the requirements of `settings.ini` at their lowest versions, one a line: `pip install $(python .ci/lowest.py)`."

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lowest(requirement: str) -> str:
    "`name>=1.2,<3` becomes `name==1.2`."
    name, version = re.match(r'([\w-]+)>=([\d.]+)', requirement).groups()
    return f'{name}=={version}'


if __name__ == '__main__':
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    print('\n'.join(map(lowest, ini['DEFAULT']['requirements'].split())))
