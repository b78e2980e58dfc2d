// Whoever does not touch the mouse, and links to one message.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stage } from './lib/test.mjs';
import { importPast } from './lib/week.mjs';

let past;
const on = stage(async ({ server }) => { past = await importPast(server); await server.settled(); });
const path = (page) => new URL(page.url()).pathname;

test('g and a letter go to each page', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/`);
  for (const [key, at] of Object.entries({ e: '/events', c: '/conversations', u: '/usage', f: '/failed', m: '/machines', k: '/keys', o: '/' })) {
    await page.keyboard.press('g');
    await page.keyboard.press(key);
    await page.waitForURL(on.server.url + at);
    await page.waitForLoadState();
  }
}));

test('a slash focuses the filter, and what is typed there is text', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/events`);
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.name), 'q');
  await page.keyboard.type('ge/j');
  assert.equal(await page.inputValue('[name=q]'), 'ge/j');
  assert.equal(path(page), '/events');
  await page.keyboard.press('Escape');
  assert.notEqual(await page.evaluate(() => document.activeElement.name), 'q');
  // A page without a filter leads to the search.
  await page.goto(`${on.server.url}/usage`);
  await page.keyboard.press('/');
  await page.waitForURL(`${on.server.url}/search`);
}));

test('j and k move, Enter opens', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/conversations`);
  const titles = await page.locator('[data-row] [data-open]').allTextContents();
  assert.ok(titles.length > 5);
  for (const key of ['j', 'j', 'j', 'k']) await page.keyboard.press(key);
  assert.equal(await page.locator('[data-row].at').count(), 1);
  assert.equal(await page.textContent('[data-row].at [data-open]'), titles[1]);
  await page.keyboard.press('Enter');
  await page.waitForURL(/\/c\//);
  assert.equal(await page.textContent('h1'), titles[1]);
}));

test('a question mark shows the keys', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/`);
  await page.keyboard.press('?');
  assert.ok(await page.isVisible('dialog'));
  await page.keyboard.press('Escape');
  assert.ok(!(await page.isVisible('dialog')));
}));

test('Tab reaches the content first, and every link shows that it has the focus', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/`);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  const { x } = await page.locator('.skip').boundingBox();
  assert.ok(x >= 0, 'it is seen');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await page.keyboard.press('Tab');
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, 'solid');
}));

test('the link of a message leads to it, also far down', () => on.page(async (page) => {
  const answer = await page.request.get(`${on.server.url}/api/v1/c/${past.rounding}`);
  const { turns } = await answer.json();
  const said = turns.flatMap((turn) => turn.nodes).filter((node) => node.kind === 'said');
  assert.ok(said.length >= 6);
  for (const { id, text } of [said[0], said.at(-1)]) {
    await page.goto(`${on.server.url}/c/${past.rounding}/m/${id}`);
    assert.equal(path(page), `/c/${past.rounding}`);
    assert.equal(new URL(page.url()).hash, `#m-${id}`);
    const message = page.locator(`#m-${id}`);
    await page.waitForFunction((name) => {
      const { top } = document.getElementById(name).getBoundingClientRect();
      return top >= 0 && top < innerHeight - 20;
    }, `m-${id}`, { timeout: 3000 });
    assert.ok((await message.textContent()).includes(text.split('\n')[0].replace(/[*`]/g, '').slice(0, 20)));
  }
}));
