// A week of a person who works on two projects: what the pictures show and the tests look at.
import { Session, edit } from './sessions.mjs';

const shop = '/home/ada/shop';
const atlas = '/home/ada/atlas';
const opus = 'claude-opus-5-5';
const haiku = 'claude-haiku-5-5';

const read = (file, output) => ({ tool: 'Read', input: { file_path: file }, output, took: 9, response: { type: 'text', file: { filePath: file, content: output, numLines: output.split('\n').length, startLine: 1, totalLines: output.split('\n').length } } });
const bash = (command, output, took = 800) => ({ tool: 'Bash', input: { command, description: 'Run a command' }, output, took });
const grep = (pattern, files) => ({ tool: 'Grep', input: { pattern, output_mode: 'files_with_matches' }, output: files.join('\n'), took: 40, response: { mode: 'files_with_matches', filenames: files, numFiles: files.length } });

/** The conversation of the pictures. */
export const rounding = {
  name: 'rounding', thinks: 6000,
  title: 'Fix the rounding of invoice totals',
  project: shop,
  model: opus,
  turns: [
    {
      prompt: 'The total of invoice 2041 is one cent less than the sum of its lines. Find out why and fix it.',
      steps: [
        { say: 'I start with the code that adds up an invoice.', ...grep('total', ['src/invoice/total.ts', 'src/invoice/line.ts', 'test/invoice/total.test.ts']) },
        read(`${shop}/src/invoice/total.ts`, "import { Line } from './line';\n\nexport function total(lines: Line[]): number {\n  const net = lines.reduce((sum, line) => sum + line.price * line.count, 0);\n  return Math.floor(net * 119) / 100;\n}\n"),
        { think: 'floor on a product of floats: 119 * 16.80 is 1999.1999…, so a cent goes missing. Tax should be rounded a line at a time, in cents.', ...bash('npm test -- total', ' ✓ adds up lines (2 ms)\n ✓ is zero without lines\n\n Tests  2 passed (2)', 2140) },
        { say: 'The tests pass because they only use whole prices. I add one with the prices of invoice 2041.', ...edit(`${shop}/test/invoice/total.test.ts`, "test('is zero without lines', () => {", "test('rounds each line, as the invoice shows it', () => {\n  expect(total([line(16.8, 1), line(4.05, 3)])).toBe(34.45);\n});\n\ntest('is zero without lines', () => {", { at: 14, around: [['});', ''], ['  expect(total([])).toBe(0);', '});']] }) },
        { ...bash('npm test -- total'), error: 'Exit code 1\n\n FAIL  test/invoice/total.test.ts > rounds each line, as the invoice shows it\nAssertionError: expected 34.44 to be 34.45\n\n Tests  1 failed | 2 passed (3)', took: 1980 },
        edit(`${shop}/src/invoice/total.ts`, '  const net = lines.reduce((sum, line) => sum + line.price * line.count, 0);\n  return Math.floor(net * 119) / 100;', '  const cents = lines.reduce((sum, line) => sum + gross(line), 0);\n  return cents / 100;', { at: 3, around: [['export function total(lines: Line[]): number {'], ['}']] }),
        bash('npm test -- total', ' ✓ adds up lines (2 ms)\n ✓ rounds each line, as the invoice shows it (1 ms)\n ✓ is zero without lines\n\n Tests  3 passed (3)', 2010),
      ],
      answer: 'The total now agrees with the lines.\n\n* **Cause:** `total` cut the fraction off the *sum*, while the invoice rounds **each line**. With the prices of invoice 2041 that is a cent less.\n* **Fix:** `src/invoice/total.ts` adds up what `gross` says for each line, in cents.\n* **Test:** `test/invoice/total.test.ts` has the prices of that invoice; it failed before.\n\nInvoices that were sent stay as they are. Shall I look for others that are a cent off?',
      waits: 95_000,
    },
    {
      prompt: 'Yes, but only count them. Do not change anything in the database.',
      steps: [
        {
          say: 'I leave the search to a helper that may only read.', tool: 'Agent', took: 400,
          input: { description: 'Count invoices that are a cent off', prompt: 'Count the invoices whose total differs from the sum of their rounded lines. Read only.', subagent_type: 'Explore' },
          agent: {
            id: 'a3f09c1d27be54e81', type: 'Explore', model: haiku, description: 'Count invoices that are a cent off',
            prompt: 'Count the invoices whose total differs from the sum of their rounded lines. Read only.',
            steps: [
              grep('createPool', ['src/db.ts']),
              bash('psql "$READ_ONLY_URL" -f count.sql', ' year | off | all\n------+-----+------\n 2025 |  31 | 1204\n 2026 |  12 |  980\n(2 rows)', 4120),
            ],
            answer: '43 of 2184 invoices are a cent off: 31 of 2025 and 12 of 2026.',
          },
        },
      ],
      answer: '**43 of 2184** invoices are one cent off:\n\n| year | off | all |\n|---|---:|---:|\n| 2025 | 31 | 1204 |\n| 2026 | 12 | 980 |\n\nNothing was changed.',
      waits: 30_000,
    },
    {
      prompt: 'Good. Commit the fix with a message that says why.',
      steps: [bash('git commit -qam "Round each line of an invoice, so that its total agrees with what the lines show" && git log --oneline -1', '8c41e07 Round each line of an invoice, so that its total agrees with what the lines show', 120)],
      answer: 'Committed as `8c41e07`.',
    },
  ],
};

// Each began so many hours ago.
const past = [
  ['checkout', shop, opus, 193, 'Speed up the checkout page', 'The checkout takes four seconds. Measure first, then make it fast.'],
  ['locale', shop, opus, 167, 'Add Portuguese to the shop', 'Add Portuguese. Take the words of the Spanish file as a guide and mark what you are unsure of.'],
  ['tiles', atlas, opus, 144, 'Cache map tiles on disk', 'Tiles are fetched again on every start. Keep 500 MB of them on disk, the oldest go first.'],
  ['coupons', shop, haiku, 121, 'Reject coupons that have run out', 'A coupon of last year still works. Why?'],
  ['contours', atlas, opus, 117, 'Draw contour lines at every zoom', 'Contour lines vanish below zoom 9. Find out why.'],
  ['flaky', shop, opus, 96, 'Find the test that fails on Mondays', 'test/calendar fails on Mondays only. Find out why, without changing the clock of the machine.'],
  ['docs', atlas, haiku, 72, 'Document the tile server', 'Write docs/tiles.md: how to start the server, its settings, what each answer means.'],
  ['search', shop, opus, 50.5, 'Search products without accents', 'Searching for cafe must find café. Keep it fast.'],
  ['upgrade', atlas, opus, 47, 'Move to the new projection library', 'Replace proj4 with the new library. Show me the differences of 20 points before you commit.'],
  ['mail', shop, haiku, 21.5, 'Send receipts as plain text too', 'Receipts are HTML only. Send a plain text part as well.'],
  ['labels', atlas, opus, 17.2, 'Keep labels from overlapping', 'City labels overlap at zoom 6. Draw the larger city first and skip labels that do not fit.'],
  ['basket', shop, opus, 14.6, 'Keep the basket when the session ends', 'Whoever comes back the next day finds an empty basket. Keep it for a week.'],
  ['legend', atlas, haiku, 13.8, 'Show a legend for the layers', 'Show which colour is which layer, and let me turn layers off there.'],
  ['stock', shop, opus, 12.4, 'Warn before an article runs out', 'Warn by mail when fewer than ten of an article are left. Once a day at most.'],
  ['zoom', atlas, opus, 8.3, 'Zoom around the pointer', 'Zooming moves the map away from the pointer. It should stay under it.'],
  ['export', shop, opus, 6.6, 'Export orders as CSV', 'I need the orders of a month as CSV, with one line for each article.'],
  ['refunds', shop, opus, 5.2, 'Show refunds in the list of orders', 'The list of orders does not say which were refunded. Show it, and let me filter by it.'],
];

/** A session of the past: some rounds of reading, changing and testing. */
function pastSession([name, project, model, hours, title, prompt], at) {
  const rounds = 5 + (at * 7) % 9;
  const steps = [{ say: 'I look at what is there first.', ...grep(name, [`src/${name}.ts`, `test/${name}.test.ts`]) }];
  for (let round = 0; round < rounds; round += 1) {
    const file = `${project}/src/${name}${round ? `-${round}` : ''}.ts`;
    steps.push(read(file, `export const part${round} = ${'// what it does\n'.repeat(60)}`));
    steps.push({ think: 'The smallest change that does it, then the tests.', ...edit(file, `part${round}`, `${name}${round}`) });
    const failed = (round + at) % 6 === 0;
    steps.push({ ...bash(`npm test -- ${name}`, ' Tests  12 passed (12)', 2300), ...(failed && { error: 'Exit code 1\n Tests  1 failed | 11 passed (12)' }) });
  }
  const answer = `Done, and the tests pass. The change is in \`src/${name}.ts\`; what I was unsure of is marked.`;
  const more = { prompt: 'Good. Say in two sentences what changed, for the release notes.', answer: `${title}. Nothing else behaves differently.` };
  return { session: { name, project, model, title, thinks: 15_000 + (at * 37_000) % 50_000, turns: [{ prompt, steps, answer }, more] }, hours };
}

/** What goes on right now: one session works, one waits for a permission, one has just ended. */
const running = [
  {
    name: 'returns', minutes: 4, project: shop, model: opus, turns: [
      { prompt: 'Customers cannot return a part of an order. Plan how to allow it, then do the first step.', steps: [grep('return', ['src/order.ts', 'src/return.ts']), read(`${shop}/src/return.ts`, 'export function giveBack(order: Order) {}\n')], answer: 'There are three steps. The first is a list of lines in a return; I do that now.' },
      { prompt: 'Go on.', steps: [edit(`${shop}/src/return.ts`, 'giveBack(order: Order)', 'giveBack(order: Order, lines: Line[])'), { ...bash('npm test -- return'), open: true }], ends: false },
    ],
  },
  {
    name: 'hills', minutes: 3, project: atlas, model: opus, turns: [
      { prompt: 'Shade hills by the slope and not by the height.', steps: [read(`${atlas}/src/shade.ts`, 'export const shade = (height: number) => height / 8848;\n'), { ...bash('rm -r cache/shades'), open: true }], ends: false },
    ], asks: { tool_name: 'Bash', tool_input: { command: 'rm -r cache/shades', description: 'Run a command' } },
  },
  {
    name: 'typo', minutes: 9, project: shop, model: haiku, turns: [
      { prompt: 'Fix the typo in the heading of the basket page.', steps: [grep('Baskte', ['src/pages/basket.tsx']), edit(`${shop}/src/pages/basket.tsx`, '<h1>Your baskte</h1>', '<h1>Your basket</h1>')], answer: 'Fixed: `Your basket`.' },
    ], open: false,
  },
];

const hour = 3_600_000;

/** Sends a session through the hook, at its own time if the server was started with one. */
async function relive(server, session, begins, open = false) {
  const hook = async (payload) => {
    if (begins) server.setTime(played.clock);
    server.hook(payload);
    await server.delivered();
  };
  const played = new Session(session, server, { hook, begins });
  await played.play({ open });
  if (session.asks) await played.hook('PermissionRequest', session.asks);
  return played;
}

/** Has the server live through the past, up to now: by hooks; what is before its first day by `arrakis import`. Returns ids. */
export async function livePast(server, now = Date.now()) {
  const ids = {};
  const [old, ...rest] = past.map(pastSession);
  await new Session(old.session, server, { begins: new Date(now - old.hours * hour) }).play();
  server.run('import');
  rest.push({ session: rounding, hours: 2.9 });
  for (const { session, hours } of rest.sort((one, other) => other.hours - one.hours)) {
    ids[session.name] = (await relive(server, session, new Date(now - hours * hour))).id;
    if (session.name === 'labels') server.hook('{"session_id":"0b1c","note":"an event of a program that is not Claude Code"}');
  }
  server.setTime(Date.now());
  return ids;
}

/** Gives the server the past by `arrakis import` alone, which is quick. Returns ids. */
export async function importPast(server, now = Date.now()) {
  const ids = {};
  for (const { session, hours } of [...past.map(pastSession), { session: rounding, hours: 2.9 }]) {
    ids[session.name] = (await new Session(session, server, { begins: new Date(now - hours * hour) }).play()).id;
  }
  server.run('import');
  return ids;
}

/** Sends what goes on now through the hook. Returns ids. */
export async function playPresent(server) {
  const ids = {};
  for (const one of running) {
    const begins = server.clock ? new Date(Date.now() - one.minutes * 60_000) : undefined;
    ids[one.name] = (await relive(server, { thinks: 20_000, ...one }, begins, one.open ?? true)).id;
  }
  if (server.clock) server.setTime(Date.now());
  return ids;
}
