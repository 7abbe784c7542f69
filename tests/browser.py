"JupyterLab in a headless Chromium: open, run and operate notebooks as readers do, and collect what goes wrong."
import ast
import base64
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
from PIL import Image

from scripts import free_port
from skeletongait.files.text import save_text

INSTALL = 'apt-get install -y --no-install-recommends chromium fonts-dejavu-core'
FLAGS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync']
SETTINGS = {  # of JupyterLab: no news, no copies while a test runs, and all cells stay in the page, far down or not
    '@jupyterlab/apputils-extension:notification': dict(
        fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
    '@jupyterlab/docmanager-extension:plugin': dict(autosave=False),
    '@jupyterlab/notebook-extension:tracker': dict(windowingMode='none')}

# Lines of a kernel that are no trouble. JupyterLab itself asks a kernel that has not imported ipywidgets yet for
# widgets, in an empty notebook too (its own names have dashes; a widget's have none). The last are progress bars.
HARMLESS = '|'.join((
    r'No such comm target registered: jupyter\.widget\.control',
    r'No such comm: [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}',
    r'[\w ]+: +\d+%\|.*\]'))
TRACES = r'^(?:\[[EC] .*|Traceback.*|\w*Error:.*)'  # lines of the server's log that are trouble
COLOURS = r'\x1b\[[0-9;]*[A-Za-z]'  # of a terminal

LISTEN = '''async () => {
    const app = window.jupyterapp, panel = app.shell.currentWidget
    await app.restored; await panel.context.ready; await panel.sessionContext.ready
    window.heard = []; window.asked = new Set()  // asked: messages that the kernel has not done with
    panel.sessionContext.session.kernel.anyMessage.connect((_, {msg, direction}) => {
        const {header, content, parent_header} = msg
        if (direction == 'send' && msg.channel == 'shell') window.asked.add(header.msg_id)
        if (header.msg_type == 'status' && content.execution_state == 'idle') window.asked.delete(parent_header.msg_id)
        if (header.msg_type == 'error') window.heard.push(content.traceback.join('\\n') + '\\n')
        if (header.msg_type == 'stream' && content.name == 'stderr') window.heard.push(content.text)})
}'''
RUN = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
# looked at in every animation frame
SETTLED = '''() => {
    window.calm = window.asked.size ? 0 : (window.calm ?? 0) + 1
    return window.calm > 5
}'''
OPENED = '''() => {
    const context = window.jupyterapp?.shell?.currentWidget?.sessionContext
    return context && document.querySelector('.jp-Notebook .jp-CodeCell')
}'''
ASK = '''async (expression) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
    const request = {code: '', silent: true, store_history: false, user_expressions: {answer: expression}}
    return (await kernel.requestExecute(request).done).content.user_expressions.answer
}'''
PIXELS = '''async (image) => {
    try { await image.decode() } catch { return [0, 0, ''] }  // just then another one came, or there is none
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), context = canvas.getContext('2d')
    context.drawImage(image, 0, 0)
    const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data, parts = []
    for (let i = 0; i < rgba.length; i += 32768) parts.push(String.fromCharCode(...rgba.subarray(i, i + 32768)))
    return [canvas.height, canvas.width, btoa(parts.join(''))]
}'''
COUNT = '''(image) => {
    image.swaps = 0
    new MutationObserver(() => image.swaps++).observe(image, {attributeFilter: ['src']})
}'''


def decoded(png):
    "The pixels `(h, w, 3)` of a PNG."
    return np.asarray(Image.open(io.BytesIO(png)).convert('RGB'))


def chromium():
    "The browser's program, or None."
    return shutil.which('chromium') or shutil.which('google-chrome')


def missing():
    "What this machine lacks for these tests, and how to get it; an empty string if nothing."
    if not chromium():
        return f'no Chromium found; on Debian or Ubuntu: {INSTALL}'
    if not importlib.util.find_spec('playwright'):
        return 'playwright is not installed: pip install -r requirements.txt'
    return ''


HOMES = ('HOME', 'IPYTHONDIR', 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR')


@contextmanager
def server(root):
    "Run JupyterLab over `root/notebooks`, with settings and history under `root`; yield its address and its log."
    homes = {name: str(root/name.lower()) for name in HOMES}
    for folder in (*homes.values(), root/'notebooks'):
        Path(folder).mkdir(parents=True, exist_ok=True)
    save_text(json.dumps(SETTINGS), root/'jupyter_config_dir'/'labconfig'/'default_setting_overrides.json')
    port = free_port()
    command = [
        sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--expose-app-in-browser',
        '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=',
        f'--ServerApp.root_dir={root}/notebooks']
    log = root/'server.log'
    fonts = matplotlib.get_cachedir()  # a new list of fonts would take seconds, and print a warning
    env = os.environ | homes | {'OMP_NUM_THREADS': '1', 'MPLCONFIGDIR': fonts}
    with log.open('wb') as f:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=f, stderr=f, start_new_session=True)
    try:
        url = f'http://127.0.0.1:{port}'
        problem = partial(last_words, log)
        wait_for(lambda: answers(f'{url}/api/status'), 60, problem)
        yield url, log
    finally:
        process.send_signal(signal.SIGTERM)  # it ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def last_words(log):
    return f'JupyterLab did not start:\n{log.read_text()[-3000:]}'


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def wait_for(what, seconds, problem):
    "Ask until `what()` is true; fail with `problem()` after `seconds`."
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, problem()
        time.sleep(.05)


@contextmanager
def laboratory(root):
    "One server and one browser; a `Lab`."
    from playwright.sync_api import sync_playwright
    with server(root) as (url, log), sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS, env=os.environ | {'HOME': str(root/'home')})
        try:
            yield Lab(root/'notebooks', url, log, browser.new_context(viewport=dict(width=1400, height=1000)))
        finally:
            browser.close()


class Lab:
    "Opens notebooks."
    def __init__(self, folder, url, log, context):
        self.folder, self.url = folder, url
        self.log, self.context = log, context
        self.count = 0

    @contextmanager
    def notebook(self, *cells, run=True):
        "Open and run a new notebook of these code cells (or a saved one); fail at its end if anything went wrong."
        self.count += 1
        book = cells[0]
        if not isinstance(book, dict):
            book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        book.metadata.kernelspec = dict(name='python3', display_name='Python 3', language='python')
        path, said = self.folder/f'{self.count}.ipynb', self.log.stat().st_size
        nbformat.write(book, path)
        page = Notebook(self.context.new_page(), path)
        try:
            page.open(f'{self.url}/lab/tree/{path.name}?reset', run)
            yield page
            problems = page.problems() + re.findall(TRACES, self.log.read_text()[said:], re.M)
            assert problems == [], '\n'.join(problems)
        finally:
            page.close()


class Notebook:
    "An open notebook in the browser."
    def __init__(self, page, path):
        self.page, self.path, self.heard = page, path, []
        page.set_default_timeout(60_000)
        page.on('console', lambda m: m.type in ('error', 'warning') and self.heard.append(f'console: {m.text}'))
        page.on('pageerror', lambda e: self.heard.append(f'page: {e}'))
        page.on('requestfailed', self.failed)
        page.on('response', lambda r: r.status >= 400 and self.heard.append(f'response: {r.url} {r.status}'))

    def failed(self, request):
        "Note a request that failed, unless it is for a picture that the next one overtook."
        swapped = request.url.startswith('blob:') and request.failure == 'net::ERR_ABORTED'
        if not swapped:
            self.heard.append(f'request: {request.url} {request.failure}')

    def open(self, url, run):
        self.page.goto(url)
        self.page.wait_for_function(OPENED)
        self.page.evaluate(LISTEN)
        if run:
            self.page.evaluate(RUN)

    def close(self):
        "Close the page; its kernel ends."
        self.page.evaluate('() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.shutdown()')
        self.page.close(run_before_unload=False)

    def problems(self):
        "Return all errors and warnings: of the browser's console, requests, cells, and the widgets in the kernel."
        self.settle()
        heard = re.sub(COLOURS, '', ''.join(self.page.evaluate('() => window.heard')))
        lines = [line for line in re.split(r'[\r\n]+', heard) if line.strip()]
        return self.heard + [f'kernel: {line}' for line in lines if not re.fullmatch(HARMLESS, line.strip())]

    def ask(self, expression):
        "The value of an expression in the notebook's kernel."
        answer = self.page.evaluate(ASK, f'__import__("json").dumps({expression})')
        assert answer['status'] == 'ok', answer
        return json.loads(ast.literal_eval(answer['data']['text/plain']))

    def until(self, expression, value, seconds=20):
        "Wait until an expression in the kernel has this value."
        def problem():
            return f'{expression}: found {self.ask(expression)!r}, expected {value!r}, after {seconds} s'
        wait_for(lambda: self.ask(expression) == value, seconds, problem)

    def settle(self):
        "Wait until the kernel has answered all that the page asked; a widget sends its next change only then."
        self.page.evaluate('() => { window.calm = 0 }')
        self.page.wait_for_function(SETTLED)

    def save(self):
        "Save the notebook with its outputs."
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        return self.path

    def find(self, css, **has): return self.page.locator(f'.jp-OutputArea {css}', **has)

    def image(self, title):
        "The picture of the panel with this title."
        return self.find(f'.widget-vbox:has(> .widget-html .sg-title:text-is({json.dumps(title)})) > img')

    def slider(self, name): return self.find('.widget-slider', has=self.label(name)).locator('.noUi-handle')
    def label(self, name): return self.page.locator('.widget-label', has_text=re.compile(f'^{re.escape(name)}$'))
    def readout(self, name): return self.find('.widget-slider', has=self.label(name)).locator('.widget-readout')
    def dropdown(self, name): return self.find('.widget-dropdown', has=self.label(name)).locator('select')
    def checkbox(self, name): return self.find('.widget-checkbox', has_text=name).locator('input')
    def button(self, name): return self.find('button', has_text=name)

    def press(self, element, key, times=1):
        "Give an element the keyboard and press a key."
        element.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def drag(self, handle, stops):
        "Take a slider's handle and draw it along its track: `stops` between 0, its beginning, and 1, its end."
        track = handle.locator('xpath=ancestor::*[contains(@class, "noUi-target")]').bounding_box()
        grip = handle.bounding_box()
        self.page.mouse.move(grip['x'] + grip['width']/2, grip['y'] + grip['height']/2)
        self.page.mouse.down()
        for s in stops:
            self.page.mouse.move(track['x'] + s*track['width'], track['y'] + track['height']/2)
        self.page.mouse.up()

    def pixels(self, image):
        "The pixels `(h, w, 3)` of a picture as the browser decoded them."
        found = []
        def look():
            found.append(image.evaluate(PIXELS))
            return found[-1][0]
        wait_for(look, 20, lambda: 'found no picture that the browser can decode')
        h, w, coded = found[-1]
        rgba = np.frombuffer(base64.b64decode(coded), np.uint8).reshape(h, w, 4)
        assert (rgba[..., 3] == 255).all()
        return rgba[..., :3]

    def screen(self, element):
        "The pixels of an element as they stand on the screen."
        return decoded(element.screenshot())

    def shows(self, image, expected, seconds=20):
        "Wait until a picture shows exactly these pixels."
        def same():
            return np.array_equal(self.pixels(image), expected)
        def problem():
            return f'found another picture, {self.pixels(image).shape}, expected {expected.shape}, after {seconds} s'
        wait_for(same, seconds, problem)
