import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * Builds what is written in C, where there is a compiler; everything else works without. Runs at
 * the end of an installation, which it never fails: it says in a line for each library what it did.
 *
 *     node native/build.mjs                        all libraries, into native/build/
 *     node native/build.mjs --sanitize FILE [NAME] a build that stops at errors of memory and
 *                                                  arithmetic, of `exec` or of `fast`; this one
 *                                                  does fail
 */

/** What a library is for, its sources in one folder, and how they are compiled. */
const LIBRARIES = {
  exec: {
    file: 'libtestudo_pfkey.so',
    folder: '.',
    flags: ['-O2', '-Wno-nonnull-compare'],
    what: '"testudo exec"',
  },
  fast: {
    file: 'testudo_fast.so',
    folder: 'fast',
    flags: ['-O3'],
    what: 'the fast path',
  },
};
const FLAGS = [
  '-std=gnu11',
  '-fPIC',
  '-shared',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
  '-Wshadow',
  '-Wconversion',
];
const SANITIZE = [
  '-g',
  '-Werror',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
];

if (process.argv[2] === '--sanitize') {
  const library = LIBRARIES[process.argv[4] ?? 'exec'];
  const { ok, text } = compile(compilers()[0] ?? 'cc', library, SANITIZE, process.argv[3]);
  process.stderr.write(text);
  process.exitCode = ok ? 0 : 1;
} else if (process.platform === 'linux') {
  const [compiler] = compilers();
  for (const library of Object.values(LIBRARIES)) {
    process.stdout.write(`${build(compiler, library)}\n`);
  }
}

function build(compiler, library) {
  const { what, file } = library;
  if (compiler === undefined) {
    return (
      `testudo: there is no C compiler, so ${what} was not built; ` +
      'to have it, install one and run "npm rebuild testudo"'
    );
  }
  mkdirSync(path('build/'), { recursive: true });
  const { ok, text } = compile(compiler, library, [], path(`build/${file}`));
  if (ok) return `testudo: built what ${what} needs`;
  return `testudo: ${what} was not built, ${compiler} failed:\n${text}`;
}

function compile(compiler, { folder, flags }, more, file) {
  const sources = readdirSync(path(folder))
    .filter((name) => name.endsWith('.c'))
    .map((name) => path(`${folder}/${name}`));
  const args = [...FLAGS, ...flags, ...more, '-o', file, ...sources, '-ldl'];
  const { status, stderr, error } = spawnSync(compiler, args, { encoding: 'utf8' });
  return { ok: status === 0, text: stderr ?? String(error) };
}

function path(name) {
  return fileURLToPath(new URL(name, import.meta.url));
}

function compilers() {
  const names = [process.env.CC, 'cc', 'gcc', 'clang'].filter((name) => name);
  return names.filter((name) => spawnSync(name, ['--version']).status === 0);
}
