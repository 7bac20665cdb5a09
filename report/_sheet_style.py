"""What the contact sheet's style adds to the report's: cards, filters, histogram, lists."""

SHEET_CSS = """
main, header, footer { max-width: 82rem; }
.demo { border-left-width: .5rem; }
.demo h2 { font-size: 1.15rem; }
.demo p { margin: .2rem 0 0; max-width: none; }
.model { list-style: none; padding: 0; margin: .6rem 0 0; max-width: 60rem; color: var(--soft);
  font-size: .9rem; line-height: 1.5; }
.model li { padding-left: .9rem; text-indent: -.9rem; }
.model li::before { content: "\\00b7"; display: inline-block; width: .9rem; text-indent: 0; }
.tile.is-refuse b { color: var(--bad); }
.tile.is-ask-again b { color: var(--warn); }
.tile.is-accept b { color: var(--good); }
.tiles { display: flex; flex-wrap: wrap; }
.tile { flex: 1 1 9.5rem; max-width: 16rem; }
.overview { display: grid; gap: 0 3rem; grid-template-columns: 1fr; align-items: start; }
@media (min-width: 58rem) { .overview { grid-template-columns: 1fr 1fr; } }
.overview > * { min-width: 0; }
.overview h2 { margin-top: 1.8rem; }
.overview th, .overview td { padding: .3rem .45rem; }
.overview thead th:not(:first-child) { min-width: 0; }
.overview tbody th { white-space: normal; font-weight: 500; }
.histogram svg { display: block; width: 100%; height: 8.5rem; max-width: none; }
.histogram .axis { stroke: var(--soft); vector-effect: non-scaling-stroke; }
.histogram .even { stroke: var(--ink); stroke-dasharray: 5 4; stroke-width: 1.2;
  vector-effect: non-scaling-stroke; opacity: .7; }
.ends { display: flex; justify-content: space-between; max-width: none; margin: .2rem 0 .5rem;
  font-size: .82rem; color: var(--soft); }
.overview .key i { display: inline-block; width: .85rem; height: .85rem; border-radius: .2rem;
  margin-right: .4rem; vertical-align: -.08rem; }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: .8rem 0; }
.filters fieldset { border: 0; padding: 0; margin: 0; min-width: 0; display: flex; flex-wrap: wrap;
  gap: .4rem; align-items: center; }
.filters legend { float: left; padding: 0; margin-right: .3rem; color: var(--soft);
  font-size: .88rem; line-height: 2rem; }
.filters label { position: relative; }
.filters input { position: absolute; inset: 0; opacity: 0; margin: 0; width: 100%; height: 100%;
  cursor: pointer; }
.filters span { display: block; padding: .2rem .75rem; border: 1px solid var(--line);
  border-radius: 2rem; font-size: .88rem; background: var(--surface); }
.filters input:hover + span { border-color: var(--soft); }
.filters input:checked + span { background: var(--ink); color: var(--surface);
  border-color: var(--ink); }
.filters input:focus-visible + span { outline: 2px solid var(--curve); outline-offset: 2px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.1rem, 1fr)); gap: .8rem;
  list-style: none; padding: 0; margin: .6rem 0 1.8rem; max-width: none; }
.cards li { min-width: 0; background: var(--raised); border-radius: .6rem; overflow: hidden;
  padding-bottom: .55rem; font-size: .82rem; line-height: 1.35; }
.cards img, .blank { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: cover;
  background: var(--shade); }
.cards::after { color: var(--soft); }
.cards .blank { display: grid; place-items: center; color: var(--soft); }
.cards p { margin: 0; padding: 0 .6rem; }
.cards .top { display: flex; align-items: baseline; justify-content: space-between; gap: 0 .4rem;
  padding-top: .3rem; flex-wrap: wrap; overflow-wrap: normal; }
.top b { font-size: 1.3rem; line-height: 1.3; font-weight: 650; }
.top span { color: var(--soft); }
.verdict { font-weight: 600; white-space: nowrap; }
.top .is-refuse { color: var(--bad); }
.top .is-ask-again { color: var(--warn); }
.top .is-accept { color: var(--good); }
.cards .why { color: var(--ink); }
.cards .name, .cards .raw { color: var(--soft); font-size: .95em; }
.cards .name { margin-top: .15rem; line-height: 1.25; word-break: break-all; }
.failed { list-style: none; padding: 0; max-width: none; font-size: .9rem; }
.failed li { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: .2rem 1.5rem;
  padding: .35rem 0; border-bottom: 1px solid var(--line); }
.failed span { color: var(--soft); }
@media (max-width: 34rem) {
  .cards { grid-template-columns: repeat(auto-fill, minmax(6.6rem, 1fr)); gap: .6rem; }
  .tiles { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
  .failed li { grid-template-columns: 1fr; }
  .cards p { padding: 0 .45rem; }
  .cards .name, .cards .raw { font-size: .72rem; }
  .top b { font-size: 1.15rem; }
}
@media print {
  main, header, footer { max-width: none; }
  .filters { display: none; }
  .overview { grid-template-columns: 1fr 1fr; gap: 0 2rem; }
  .tile { flex-basis: 0; padding: .5rem .7rem; }
  .cards { grid-template-columns: repeat(6, 1fr); gap: .5rem; }
  .cards .name, .cards .raw { font-size: .72rem; }
  .cards li { break-inside: avoid; border: 1px solid var(--line); background: none; }
  .histogram svg { height: 6rem; }
  .failed li { break-inside: avoid; padding: .15rem 0; }
}
"""
