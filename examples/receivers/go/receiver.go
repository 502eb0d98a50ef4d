// Receives houdini-relay's webhooks with the standard library: verify, drop repeats and old news, store, answer.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxBody   = 1 << 20
	tolerance = 5 * time.Minute
)

func main() {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("RELAY_SECRET"), "whsec_"))
	if err != nil || len(key) < 24 { // never verify with an empty key
		log.Fatal("RELAY_SECRET is missing or damaged")
	}
	journal, err := openJournal(setting("RELAY_STATE", "receiver.jsonl"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/hooks/houdini", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(receive(key, journal, w, r))
	})
	server := &http.Server{Addr: "127.0.0.1:" + setting("PORT", "8790"), ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// receive says 2xx only once the event is stored: after anything else it comes again.
func receive(key []byte, journal *Journal, w http.ResponseWriter, r *http.Request) int {
	// The bytes as they came, for the signature is over them.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return http.StatusRequestEntityTooLarge
	}
	if err != nil || !isGenuine(key, r.Header, body, time.Now()) {
		return http.StatusUnauthorized
	}
	var event struct {
		Data  struct{ HoudiniID string }
		Relay *struct{ OrderSequence int64 } // the relay's own notices (relay.*) have none
	}
	err = json.Unmarshal(body, &event)
	if err == nil {
		// As text, because a float64 would keep only 16 digits of an amount.
		entry := Entry{WebhookID: r.Header.Get("webhook-id"), Body: string(body)}
		if event.Relay != nil {
			entry.HoudiniID, entry.OrderSequence = event.Data.HoudiniID, event.Relay.OrderSequence
		}
		err = journal.Take(entry)
	}
	if err != nil {
		log.Print("not stored: ", err)
		return http.StatusInternalServerError
	}
	return http.StatusNoContent
}

// isGenuine follows Standard Webhooks 1.0.0: any one of the signatures, over id, time and bytes, made within the
// last five minutes.
func isGenuine(key []byte, header http.Header, body []byte, now time.Time) bool {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil {
		return false
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	expected := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for _, offered := range strings.Split(header.Get("webhook-signature"), " ") {
		if hmac.Equal(expected, []byte(offered)) { // in constant time
			return true
		}
	}
	return false
}

// Entry is one event taken.
type Entry struct {
	WebhookID     string `json:"webhookId"`
	HoudiniID     string `json:"houdiniId,omitempty"`
	OrderSequence int64  `json:"orderSequence,omitempty"`
	Body          string `json:"body"`
}

// Journal has one JSON line per event taken: what is left to work on, and the memory of what came, in one write.
// It is for one process, and up to some hundred thousand events; beyond either, use a database.
type Journal struct {
	mutex  sync.Mutex // two posts of one id must not both be new
	file   *os.File
	size   int64
	seen   map[string]bool
	latest map[string]int64
}

func openJournal(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	found, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	// Half a line at the end was never answered with 2xx: it comes again.
	whole := found[:bytes.LastIndexByte(found, '\n')+1]
	journal := &Journal{file: file, size: int64(len(whole)), seen: map[string]bool{}, latest: map[string]int64{}}
	for _, line := range bytes.Split(bytes.TrimSpace(whole), []byte("\n")) {
		var entry Entry
		if len(line) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, err
		}
		journal.remember(entry)
	}
	return journal, nil
}

func (j *Journal) remember(entry Entry) {
	j.seen[entry.WebhookID] = true
	if entry.HoudiniID != "" {
		j.latest[entry.HoudiniID] = entry.OrderSequence
	}
}

// Take stores an event to work on, unless it is a repeat or older than what this order already had.
func (j *Journal) Take(entry Entry) error {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	latest, known := j.latest[entry.HoudiniID]
	if j.seen[entry.WebhookID] || (known && entry.OrderSequence <= latest) {
		return nil
	}
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if err := j.file.Truncate(j.size); err != nil { // what a failed write may have left
		return err
	}
	if _, err := j.file.WriteAt(line, j.size); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.size += int64(len(line))
	j.remember(entry)
	return nil
}
