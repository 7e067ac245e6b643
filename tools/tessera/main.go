// Command tessera sets transparency-dev's own log beside facetmesh's.
//
//	tessera measure FOLDER ENTRIES BYTES ADDERS BATCH
//	tessera check FOLDER KEYFILE
//
// measure prints how many entries a second Tessera's POSIX log makes durable, in process,
// with many adders at once and batches of this size. check verifies a log that
// `facetmesh audit export-log` copied: the checkpoint's signature, and each tile anew from
// the entries.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tessera:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 6 && args[0] == "measure":
		var numbers [4]int
		for i, arg := range args[2:] {
			n, err := strconv.Atoi(arg)
			if err != nil || n < 1 {
				return fmt.Errorf("not a number: %s", arg)
			}
			numbers[i] = n
		}
		return measure(args[1], numbers[0], numbers[1], numbers[2], numbers[3])
	case len(args) == 3 && args[0] == "check":
		return check(args[1], args[2])
	}
	return fmt.Errorf("usage: tessera measure FOLDER ENTRIES BYTES ADDERS BATCH | check FOLDER KEYFILE")
}

func check(folder, keyFile string) error {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	checker := fsck.New(verifier.Name(), verifier, &client.FileFetcher{Root: folder}, leafHashes, fsck.Opts{N: 2})
	return checker.Check(context.Background())
}

func leafHashes(bundle []byte) ([][]byte, error) {
	var parsed api.EntryBundle
	if err := parsed.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	hashes := make([][]byte, 0, len(parsed.Entries))
	for _, entry := range parsed.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}

func measure(folder string, entries, size, adders, batch int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	secret, _, err := note.GenerateKey(rand.Reader, "bench")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: folder})
	if err != nil {
		return err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).
		WithCheckpointInterval(100*time.Millisecond).WithBatching(uint(batch), 10*time.Millisecond)
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return err
	}
	var next atomic.Int64
	var failed atomic.Value
	var group sync.WaitGroup
	began := time.Now()
	for range adders {
		group.Add(1)
		go func() {
			defer group.Done()
			for next.Add(1) <= int64(entries) {
				data := make([]byte, size)
				rand.Read(data)
				if _, err := appender.Add(ctx, tessera.NewEntry(data))(); err != nil {
					failed.Store(err)
					return
				}
			}
		}()
	}
	group.Wait()
	if err, ok := failed.Load().(error); ok {
		return err
	}
	fmt.Printf("%.0f\n", float64(entries)/time.Since(began).Seconds())
	return shutdown(ctx)
}
