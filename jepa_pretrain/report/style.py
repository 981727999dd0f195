"""How the page looks: light and dark by the reader's setting, wide screens and phones."""

STYLE = """
:root { --ground: #ffffff; --ink: #1c1c1e; --soft: #6b6b70; --line: #e2e2e6; --card: #f6f6f8; --bar: #3b82f6;
  --base: #a1a1aa; --good: #15803d; --bad: #dc2626; --warn: #fef3c7; --warn-ink: #78350f; }
@media (prefers-color-scheme: dark) { :root { --ground: #17171a; --ink: #ececf0; --soft: #a0a0a8; --line: #34343a;
  --card: #202024; --bar: #60a5fa; --base: #71717a; --good: #4ade80; --bad: #f87171; --warn: #422006;
  --warn-ink: #fde68a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 64rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .3rem; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .3rem; font-size: 1.15rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .86rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; margin: .6rem 0; font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.warn { background: var(--warn); color: var(--warn-ink); border-radius: .5rem; padding: .6rem .9rem; margin: .6rem 0; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; }
.pairs { display: grid; grid-template-columns: repeat(2, 1fr); gap: 1rem; }
@media (min-width: 44rem) { .tiles { grid-template-columns: repeat(8, 1fr); }
  .pairs { grid-template-columns: repeat(4, 1fr); } }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .25rem; }
.pair figcaption { grid-column: 1 / 3; }
.row { display: grid; grid-template-columns: 1fr .12fr repeat(5, 1fr); gap: .4rem;
  margin-bottom: .7rem; max-width: 52rem; }
.row > :first-child { grid-column: 1; }
.row > :nth-child(2) { grid-column: 3; }
figure { margin: 0; min-width: 0; }
figcaption { line-height: 1.25; margin-top: .15rem; overflow-wrap: anywhere; }
img { width: 100%; height: auto; display: block; border-radius: .25rem; }
.film { image-rendering: pixelated; }
.films { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem; }
.pixels { image-rendering: pixelated; aspect-ratio: 1; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.right::before { content: "✓ "; } .wrong::before { content: "✗ "; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { overflow-wrap: anywhere; width: 65%; }
td.number:last-child, th:last-child { padding-right: 0; }
.group td { padding-top: 1.1rem; font-weight: 600; }
@media (max-width: 32rem) { .row { gap: .25rem; } .row figcaption { font-size: .68rem; }
  td.number:last-child, th:last-child { display: none; } }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { height: .35rem; border-radius: .2rem; background: var(--bar); margin-top: .3rem; }
.bar.base { background: var(--base); }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .8rem; }
"""
