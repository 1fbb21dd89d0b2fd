/* Runs a fuzz target over every file of a directory, by default tests/fuzz/corpus/X for a program
 * named fuzz_X, and over the empty input, without libFuzzer: what fuzzing once found stays fixed.
 * It prints TAP, and each line only after its input was survived, so an abort shows as missing
 * lines. It is not a fuzzer and changes no input. Linked with one tests/fuzz/fuzz_X.c, under the
 * sanitizers; started by `make test`.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* The exact size is allocated, so that a read behind the end is one the sanitizer sees. */
static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long size = -1;

    if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0) {
        rewind(f);
        data = malloc((size_t)size);
        if (size && (!data || fread(data, 1, (size_t)size, f) != (size_t)size)) {
            size = -1;
        }
    }
    if (f) {
        fclose(f);
    }
    if (size >= 0) {
        LLVMFuzzerTestOneInput(data, (size_t)size);
    }
    free(data);
    return size >= 0;
}

static const char *corpus_of(const char *program, char *room, size_t size)
{
    const char *name = strrchr(program, '/');

    name = name ? name + 1 : program;
    if (strncmp(name, "fuzz_", 5) == 0) {
        name += 5;
    }
    snprintf(room, size, "tests/fuzz/corpus/%s", name);
    return room;
}

int main(int argc, char **argv)
{
    struct dirent **entries = NULL;
    int i, failed = 0, n;
    char path[4096], room[512];
    const char *dir = argc > 1 ? argv[1] : corpus_of(argv[0], room, sizeof(room));

    n = scandir(dir, &entries, is_input, alphasort);
    if (n < 0) {
        n = 0;
    }
    printf("1..%d\n", n + 1);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("ok 1 - the empty input\n");
    for (i = 0; i < n; i++) {
        int ok;

        fflush(stdout);
        snprintf(path, sizeof(path), "%s/%s", dir, entries[i]->d_name);
        ok = replay(path);
        failed += !ok;
        printf("%sok %d - %s\n", ok ? "" : "not ", i + 2, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return failed ? 1 : 0;
}
