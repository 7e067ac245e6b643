// Command verifylog checks receipts and the log's growth with Go's own
// implementation of Merkle proofs and signed notes, the one behind sum.golang.org.
// It shares no code with facetmesh: tests use it to see that others can verify
// what our log says.
//
//	verifylog receipt KEYFILE RECEIPT.json...
//	verifylog growth KEYFILE OLD-CHECKPOINT NEW-CHECKPOINT PROOF
//
// A proof is a file of one base64 hash a line. The exit code is 1 when anything
// does not hold.
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// logProof is protobuf's JSON form of facetmesh.audit.v1.LogProof.
type logProof struct {
	SignedEvent []byte   `json:"signedEvent"`
	Salt        []byte   `json:"salt"`
	Index       int64    `json:"index,string"`
	Hashes      [][]byte `json:"hashes"`
}

// receipt is protobuf's JSON form of facetmesh.audit.v1.Receipt.
type receipt struct {
	Event      logProof `json:"event"`
	ServiceKey logProof `json:"serviceKey"`
	Checkpoint string   `json:"checkpoint"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "verifylog:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: verifylog receipt KEYFILE RECEIPT... | growth KEYFILE OLD NEW PROOF")
	}
	key, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	switch files := args[2:]; {
	case args[0] == "receipt":
		for _, file := range files {
			if err := checkReceipt(verifier, file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	case args[0] == "growth" && len(files) == 3:
		return checkGrowth(verifier, files[0], files[1], files[2])
	}
	return fmt.Errorf("no such command: %s", strings.Join(args, " "))
}

func checkReceipt(verifier note.Verifier, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r receipt
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	tree, err := openCheckpoint(verifier, []byte(r.Checkpoint))
	if err != nil {
		return err
	}
	if err := checkInclusion(tree, r.Event); err != nil {
		return fmt.Errorf("the event: %w", err)
	}
	if err := checkInclusion(tree, r.ServiceKey); err != nil {
		return fmt.Errorf("the service's key: %w", err)
	}
	return nil
}

func checkInclusion(tree tlog.Tree, p logProof) error {
	commitment := sha256.New()
	commitment.Write([]byte("facetmesh-entry-v1\n"))
	commitment.Write(p.Salt)
	commitment.Write(p.SignedEvent)
	entry := commitment.Sum([]byte{1})
	hashes, err := toHashes(p.Hashes)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(hashes, tree.N, tree.Hash, p.Index, tlog.RecordHash(entry))
}

func checkGrowth(verifier note.Verifier, oldFile, newFile, proofFile string) error {
	var trees [2]tlog.Tree
	for i, file := range []string{oldFile, newFile} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if trees[i], err = openCheckpoint(verifier, data); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	data, err := os.ReadFile(proofFile)
	if err != nil {
		return err
	}
	var raw [][]byte
	for _, line := range strings.Fields(string(data)) {
		hash, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return err
		}
		raw = append(raw, hash)
	}
	hashes, err := toHashes(raw)
	if err != nil {
		return err
	}
	return tlog.CheckTree(hashes, trees[1].N, trees[1].Hash, trees[0].N, trees[0].Hash)
}

// openCheckpoint reads a C2SP tlog-checkpoint. (tlog.ParseTree reads only those of
// Go's own database, whose first line is fixed.)
func openCheckpoint(verifier note.Verifier, data []byte) (tlog.Tree, error) {
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

func toHashes(raw [][]byte) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(raw))
	for i, value := range raw {
		if copy(hashes[i][:], value) != tlog.HashSize || len(value) != tlog.HashSize {
			return nil, fmt.Errorf("a hash of %d bytes", len(value))
		}
	}
	return hashes, nil
}
