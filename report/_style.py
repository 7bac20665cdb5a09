"""The style sheet of the HTML report: phone, desktop and paper, in light and dark.

Colours are CSS variables, shared with the pictures (`_report_svg.PARTS`); contrast of text is at
least 4.5 : 1 on either ground.
"""

CSS = """
:root {
  color-scheme: light dark;
  --surface: #ffffff; --raised: #f4f6f8; --ink: #17212b; --soft: #55606c; --line: #d8dee4;
  --curve: #0b6e99; --other: #b2500a; --third: #6c4a9e; --random: #6b7280; --shade: #eef3f6;
  --warn: #8a5200; --warn-back: #fff6e5; --good: #1c6b3c; --bad: #a4262c;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --surface: #12181f; --raised: #1b242d; --ink: #e8edf2; --soft: #a3b0bd; --line: #33404c;
    --curve: #5cb8e4; --other: #f0a15c; --third: #b79be8; --random: #94a0ac; --shade: #1b2732;
    --warn: #f3bf68; --warn-back: #2c2414; --good: #7fd19d; --bad: #f49a9a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--surface); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main, header { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; margin: .2rem 0 .4rem; }
h2 {
  font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
h1, h2, h3, p, li, summary { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; }
.over { color: var(--soft); margin: 0; font-size: .92rem; letter-spacing: .02em; }
.lead { font-size: 1.08rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; line-height: 1.45; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0; padding: 0; max-width: none;
}
.tile { background: var(--raised); border-radius: .6rem; padding: .8rem 1rem; list-style: none; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.2; font-weight: 650; }
.tile span { display: block; color: var(--soft); font-size: .88rem; line-height: 1.4; }
.warnings {
  background: var(--warn-back); border-left: .3rem solid var(--warn); border-radius: .3rem;
  padding: .7rem 1rem; margin: 1.4rem 0; max-width: none;
}
.warnings h2 { all: unset; display: block; font-weight: 650; color: var(--warn); }
.warnings ul { margin: .3rem 0 0; padding-left: 1.1rem; }
figure { margin: 1.2rem 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 30rem; }
figure svg * { stroke-linejoin: round; }
figcaption p { margin: .3rem 0; }
@media (min-width: 58rem) {
  .alone { display: grid; grid-template-columns: 30rem 1fr; gap: 2.5rem; align-items: center; }
  .alone .key { display: block; }
}
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
  gap: 0 2rem; align-items: start; }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: .3rem 0 .5rem;
  padding: 0; font-size: .9rem; color: var(--ink); }
.key svg { display: inline-block; width: 1.8rem; height: .8rem; margin-right: .4rem;
  vertical-align: baseline; }
.scroll { overflow-x: auto; margin: 1rem 0; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--curve); }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.35; min-width: 100%; }
caption { text-align: left; font-weight: 600; padding: 0 0 .4rem; }
caption span { position: sticky; left: 0; display: inline-block;
  max-width: min(100%, calc(100vw - 2rem)); white-space: normal; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; }
thead th:not(:first-child) { min-width: 5.6rem; }
tbody th { color: var(--ink); vertical-align: top; }
th:first-child { position: sticky; left: 0; background: var(--surface); }
tr.mark th:first-child { background: var(--raised); }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
td small { color: var(--soft); font-size: .85em; display: block; }
tr.mark td, tr.mark th { background: var(--raised); }
.text { white-space: normal; text-align: left; min-width: 14rem; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.7rem, 1fr)); gap: .7rem;
  list-style: none; padding: 0; margin: .6rem 0 1.4rem; max-width: none; }
.faces li { font-size: .82rem; line-height: 1.3; min-width: 0; }
.faces img, .errors img { display: block; width: 100%; height: auto; aspect-ratio: 1;
  object-fit: cover; border-radius: .35rem; background: var(--raised); }
.faces .name, .errors .name { color: var(--soft); display: block; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.errors { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 100%), 1fr));
  gap: 1rem; list-style: none; padding: 0; margin: .6rem 0 1.4rem; max-width: none; }
.errors li { font-size: .85rem; line-height: 1.35; background: var(--raised); padding: .6rem;
  border-radius: .6rem; min-width: 0; }
.errors p { margin: 0; }
.errors p span { display: block; }
@media (max-width: 34rem) {
  .errors li { display: grid; grid-template-columns: 10.5rem 1fr; gap: .7rem; align-items: start; }
  th, td { padding: .4rem .45rem; }
}
.errors .sides { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; margin-bottom: .4rem; }
.errors .sides > div { min-width: 0; }
.kept { color: var(--bad); font-weight: 600; }
.refused { color: var(--good); font-weight: 600; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
code, pre { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--raised); padding: .8rem;
  border-radius: .4rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1rem;
  font-size: .9rem; margin: .6rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
footer { max-width: 68rem; margin: 3rem auto 2rem; padding: 0 1rem; }
a { color: var(--curve); }
@media print {
  @page { margin: 13mm 14mm; }
  html { font-size: 9pt; }
  body { font-size: 1rem; }
  header { padding-top: 0; }
  footer { display: none; }
  p, ul { max-width: none; }
  main, header { max-width: none; padding: 0; }
  h2 { margin-top: 1.4rem; }
  thead th:not(:first-child) { min-width: 0; }
  caption span { position: static; max-width: none; }
  h2, h3, caption { break-after: avoid; }
  figure, .tile, .errors li, .faces li, tr, .warnings { break-inside: avoid; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .tile { border: 1px solid var(--line); }
  .pair { grid-template-columns: 1fr 1fr; }
  .alone { display: grid; grid-template-columns: 24rem 1fr; gap: 2rem; align-items: center; }
  h3 { margin-top: .8rem; }
  figure { margin: .6rem 0; }
  .scroll { overflow: visible; }
  table { font-size: .84rem; }
  th:first-child { position: static; }
  th, td { padding: .2rem .35rem; }
  .faces { grid-template-columns: repeat(6, 1fr); }
  .errors { grid-template-columns: repeat(4, 1fr); }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
