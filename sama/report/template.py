"""The page's HTML and CSS. A module, not a data file, so that what depends on it is found by reading imports."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1f2933; --muted: #5b6670;
  --line: #dfe4e8; --accent: #0072b2; --wash: #eef4f9; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --card: #1c2228; --ink: #e6eaee; --muted: #9aa6b1;
  --line: #313a43; --accent: #6cb8ea; --wash: #1d2b37; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; }
a { color: var(--accent); }
.subtitle { color: var(--muted); margin: 0 0 1.4rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .92rem; margin: 1.4rem 0 0; }
nav a { text-decoration: none; }
nav a:hover, nav a:focus { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem; padding: 0;
  margin: 0; list-style: none; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .85rem 1rem .8rem;
  border-top: 4px solid var(--tile, var(--muted)); }
.tile b { display: block; font-size: 1.4rem; line-height: 1.2; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile small { font-size: .86rem; font-weight: 400; color: var(--muted); white-space: nowrap; }
.tile span { display: block; color: var(--muted); font-size: .86rem; line-height: 1.35; margin-top: .25rem; }
.findings { background: var(--wash); border-radius: .6rem; padding: .7rem 1.1rem; margin: 1.2rem 0 0; }
figure { margin: 1rem 0 1.6rem; }
.sheet { background: #ffffff; border: 1px solid var(--line); border-radius: .6rem; padding: .9rem; overflow-x: auto; }
.sheet img { display: block; width: 100%; min-width: 33rem; height: auto; margin: 0 auto; }
figcaption, .note { color: var(--muted); font-size: .92rem; margin-top: .55rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; min-width: 50%; }
th, td { padding: .38rem .95rem .38rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8rem; }
td[colspan] { text-align: center; }
caption { text-align: left; font-weight: 600; padding: .9rem 0 .3rem; }
thead th { color: var(--muted); font-weight: 600; font-size: .88rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  overflow-x: auto;  font-size: .85rem; line-height: 1.45; }
code { font-family: ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
summary { cursor: pointer; color: var(--accent); }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .88rem; }
@media print { .sheet { break-inside: avoid; overflow: visible; } .sheet img { min-width: 0; } }
"""

HTML = """\
{%- macro table(t) %}
<div class="scroll"><table>
<caption>{{ t.title }}</caption>
<thead><tr>{% for name in t.header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in t.rows %}
<tr>{% for cell in row -%}
<td{% if cell.span > 1 %} colspan="{{ cell.span }}"{% endif %}>
{%- if cell.best %}<strong>{{ cell.text | unbroken }}</strong>{% else %}{{ cell.text | unbroken }}{% endif %}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- for note in t.notes %}
<p class="note">{{ note | unbroken }}</p>
{%- endfor %}
{%- endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }} · SAMA report</title>
<link rel="icon" href="data:,">
<style>{{ css }}</style>
</head>
<body>
<main>
<header>
<h1>{{ page.title }}</h1>
<p class="subtitle">{{ page.subtitle | unbroken }}</p>
<ul class="tiles">
{%- for tile in page.tiles %}
<li class="tile" style="--tile: {{ tile.colour }}"><b>{{ tile.value }}
{%- if tile.spread %} <small>{{ tile.spread }}</small>{% endif %}</b><span>{{ tile.text | unbroken }}</span></li>
{%- endfor %}
</ul>
<div class="findings">
{%- for text in page.findings %}
<p>{{ text | unbroken }}</p>
{%- endfor %}
</div>
<nav aria-label="Sections">
{%- for section in page.sections %}
<a href="#{{ section.key }}">{{ section.title }}</a>
{%- endfor %}
</nav>
</header>
{%- for section in page.sections %}
<section id="{{ section.key }}">
<h2>{{ section.title }}</h2>
{%- for text in section.texts %}
<p>{{ text | unbroken }}</p>
{%- endfor %}
{%- for picture in section.pictures %}
<figure>
<div class="sheet">
<img alt="{{ picture.alt }}" src="{{ picture.source }}" style="max-width: {{ picture.width }}px">
</div>
<figcaption>{{ picture.caption | unbroken }}</figcaption>
</figure>
{%- endfor %}
{%- for t in section.tables %}
{{ table(t) }}
{%- endfor %}
{%- if section.links %}
<p>Files: {% for text, address in section.links %}{% if not loop.first %}, {% endif %}<a href="{{ address }}">
{{- text }}</a>{% endfor %}</p>
{%- endif %}
{%- if section.command %}
<pre><code>{{ section.command }}</code></pre>
{%- endif %}
{%- if section.folded %}
<details><summary>Show the configuration</summary>
<pre><code>{{ section.folded }}</code></pre>
</details>
{%- endif %}
</section>
{%- endfor %}
<footer>Made by the report stage of sama from {{ page.source }}. Method: Choe et al., “Making Scalable Meta Learning
Practical”, NeurIPS 2023, <a href="https://arxiv.org/abs/2310.05674">arXiv:2310.05674</a>.</footer>
</main>
</body>
</html>
"""
