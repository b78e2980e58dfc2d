// Everything works without JavaScript but what is live.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signIn } from './lib/browser.mjs';
import { until } from './lib/server.mjs';
import { stage } from './lib/test.mjs';
import { importPast } from './lib/week.mjs';

let past;
const on = stage(async ({ server }) => {
  past = await importPast(server);
  server.hook({ session_id: 'plain', cwd: '/home/ada/shop', hook_event_name: 'UserPromptSubmit', prompt: 'A prompt to be found' });
  server.hook({ session_id: 'plain', cwd: '/home/ada/shop', hook_event_name: 'Stop', last_assistant_message: 'An answer' });
  server.hook('{"session_id":"0b1c","note":"this is not an event"}');
  await server.settled();
});
const javaScriptEnabled = false;

test('somebody signs in', () => on.page(async (page) => {
  await signIn(page, on.server);
  assert.ok(await page.isVisible('h1'));
  assert.match(await page.textContent('h1'), /events/);
  await page.click('text=Sign out');
  await page.waitForURL(/\/sign-in/);
}, { javaScriptEnabled, storageState: undefined }));

test('somebody filters events', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/events`);
  const all = await page.locator('[data-row]').count();
  await page.fill('[name=type]', 'UserPromptSubmit');
  await page.click('button:has-text("Filter")');
  assert.equal(new URL(page.url()).searchParams.get('type'), 'UserPromptSubmit');
  assert.equal(await page.locator('[data-row]').count(), 1);
  assert.ok(all > 1);
  assert.ok(await page.isVisible('td:has-text("A prompt to be found")'));
  await page.click('a.chip:has-text("UserPromptSubmit")');
  assert.equal(await page.locator('[data-row]').count(), all);
  // Less usual filters are behind "more".
  await page.click('summary:has-text("more")');
  await page.fill('[name=session]', 'plain');
  await page.click('button:has-text("Filter")');
  assert.equal(await page.locator('[data-row]').count(), 2);
}, { javaScriptEnabled }));

test('somebody tries a failed group again', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/failed`);
  assert.equal(await page.locator('.group').count(), 1);
  await page.click('button:has-text("Try it again")');
  await page.waitForURL(/done=retry/);
  assert.match(await page.textContent('[role=status]'), /^1 will be tried again/);
  // It is not understood this time either, which the event's life tells.
  const [event] = JSON.parse(on.server.run('events', 'list', '--session', '0b1c', '--json'));
  await until('the retry', async () => {
    await page.goto(`${on.server.url}/events/${event.id}`);
    return (await page.textContent('.life')).includes('asked for on the dashboard');
  });
}, { javaScriptEnabled }));

test('somebody reads a conversation, with what its tools did', () => on.page(async (page) => {
  await page.goto(`${on.server.url}/conversations`);
  await page.click('text=Fix the rounding of invoice totals');
  assert.equal(new URL(page.url()).pathname, `/c/${past.rounding}`);
  assert.equal(await page.textContent('h1'), 'Fix the rounding of invoice totals');
  assert.ok(await page.isVisible('.said.you:has-text("The total of invoice 2041")'));
  assert.ok(await page.isVisible('.said strong:has-text("Cause:")'));
  const edit = page.locator('details.used:has-text("src/invoice/total.ts")').filter({ has: page.locator('.diff') }).last();
  assert.ok(!(await edit.locator('.diff').isVisible()));
  await edit.locator('summary').click();
  assert.ok(await edit.locator('.added:has-text("return cents / 100;")').isVisible());
  const agent = page.locator('details.agent');
  await agent.locator('> summary').click();
  assert.ok(await agent.locator('.said:has-text("43 of 2184 invoices")').first().isVisible());
  await page.click('.tabs a:has-text("skim")');
  assert.equal(await page.locator('.skim').count(), 3);
}, { javaScriptEnabled }));
