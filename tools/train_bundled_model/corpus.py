"""Turns the Rust Book's HTML (MIT OR Apache-2.0, shipped with the toolchain's rust-docs) into ChatML question/answer documents and plain passages."""
import re, sys, json, pathlib, subprocess
from bs4 import BeautifulSoup
root = pathlib.Path(subprocess.check_output(['rustc', '--print', 'sysroot'], text=True).strip()) / 'share/doc/rust/html/book'
pages = sorted(root.glob('ch*.html')) + sorted(root.glob('appendix*.html')) + [root / 'foreword.html']
docs = []
seen = set()

def text(el):
    if el.name == 'pre':
        code = el.find('code')
        if not code:
            return None
        for b in code.find_all(class_='boring'):
            b.decompose()
        return '```\n' + code.get_text().rstrip() + '\n```'
    if el.name in ('ul', 'ol'):
        return '\n'.join(('- ' + re.sub('\\s+', ' ', li.get_text()).strip() for li in el.find_all('li', recursive=False)))
    return re.sub('\\s+', ' ', el.get_text()).strip()
for p in pages:
    s = BeautifulSoup(p.read_text(), 'lxml')
    m = s.find('main')
    if not m:
        continue
    head = None
    buf = []

    def flush():
        if head and sum(map(len, buf)) > 80:
            docs.append((head, list(buf)))
    for el in m.find_all(['h1', 'h2', 'h3', 'h4', 'p', 'pre', 'ul', 'ol'], recursive=True):
        if el.find_parent(['pre', 'ul', 'ol', 'figcaption', 'blockquote']) and el.name != 'p':
            continue
        if el.find_parent(['li']):
            continue
        if el.name in ('h1', 'h2', 'h3', 'h4'):
            flush()
            head = re.sub('\\s+', ' ', el.get_text()).strip()
            buf = []
        else:
            t = text(el)
            if t and (not t.startswith('Filename:')):
                buf.append(t)
    flush()
out = []
for h, b in docs:
    body = '\n\n'.join(b)
    key = (h, body[:100])
    if key in seen:
        continue
    seen.add(key)
    out.append({'title': h, 'text': body})
json.dump(out, open('corpus.json', 'w'))
print(len(pages), len(out), sum((len(d['text']) for d in out)))
for d in out[40:43]:
    print(d['title'], '|', d['text'][:200])
