import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * Builds what `testudo exec` preloads into programs, where there is a C compiler; everything else
 * works without. Runs at the end of an installation, which it never fails: it says in one line what
 * it did.
 *
 *     node native/build.mjs                 native/build/libtestudo_pfkey.so
 *     node native/build.mjs --sanitize FILE a build that stops at errors of memory and arithmetic;
 *                                           this one does fail
 */

const FLAGS = [
  '-std=gnu11',
  '-O2',
  '-fPIC',
  '-shared',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
  '-Wshadow',
  '-Wconversion',
  '-Wno-nonnull-compare',
];
const SANITIZE = [
  '-g',
  '-Werror',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
];
const source = fileURLToPath(new URL('testudo_pfkey.c', import.meta.url));
const output = fileURLToPath(new URL('build/libtestudo_pfkey.so', import.meta.url));

if (process.argv[2] === '--sanitize') {
  const { ok, text } = compile(compilers()[0] ?? 'cc', SANITIZE, process.argv[3]);
  process.stderr.write(text);
  process.exitCode = ok ? 0 : 1;
} else if (process.platform === 'linux') {
  process.stdout.write(`${build()}\n`);
}

function build() {
  const [compiler] = compilers();
  if (compiler === undefined) {
    return (
      'testudo: there is no C compiler, so "testudo exec" was not built; ' +
      'to have it, install one and run "npm rebuild testudo"'
    );
  }
  mkdirSync(fileURLToPath(new URL('build/', import.meta.url)), { recursive: true });
  const { ok, text } = compile(compiler, [], output);
  if (ok) return 'testudo: built what "testudo exec" needs';
  return `testudo: "testudo exec" was not built, ${compiler} failed:\n${text}`;
}

function compile(compiler, flags, file) {
  const args = [...FLAGS, ...flags, '-o', file, source, '-ldl'];
  const { status, stderr, error } = spawnSync(compiler, args, { encoding: 'utf8' });
  return { ok: status === 0, text: stderr ?? String(error) };
}

function compilers() {
  const names = [process.env.CC, 'cc', 'gcc', 'clang'].filter((name) => name);
  return names.filter((name) => spawnSync(name, ['--version']).status === 0);
}
