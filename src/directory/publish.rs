//! From a new state to the snapshots of all views, and what is published of them.

use std::{sync::Arc, time::Instant};

use crate::directory::{
    ChangeKind, Entry, Mode, Options, Snapshot, Transition,
    admit::Admitted,
    change, diff, ladder,
    outbox::{Note, Outbox, Warning},
    selection::Selection,
    state::State,
    view::View,
};
use crate::logs;

impl State {
    /// The views other than the root that somebody holds.
    fn derived_views(&mut self) -> Vec<Arc<View>> {
        let mut views = Vec::with_capacity(self.derived.len());
        self.derived.retain(|view| {
            let view = view.upgrade();
            let lives = view.is_some();
            views.extend(view);
            lives
        });
        views
    }

    pub(super) fn views(&mut self) -> Vec<Arc<View>> {
        let mut views = self.derived_views();
        views.push(Arc::clone(&self.root));
        views
    }

    /// The view of `selection`, shared with everybody else who asks for the same.
    pub(super) fn view(&mut self, selection: Selection, options: &Options) -> Arc<View> {
        if let Some(view) = self
            .views()
            .into_iter()
            .find(|view| view.selection == selection)
        {
            return view;
        }
        let root = self.root.snapshot();
        let mut snapshot = self.select(root.entries.to_vec(), &selection, options);
        snapshot.revision = root.revision;
        snapshot.received = root.received;
        let view = Arc::new(View::new(selection, snapshot));
        self.derived.push(Arc::downgrade(&view));
        view
    }

    /// Makes snapshots of a new state and publishes those that differ. Returns what happened in
    /// the root view, `None` if nothing was published.
    pub(super) fn advance(
        &mut self,
        admitted: Admitted,
        force: bool,
        received: Option<Instant>,
        options: &Options,
        out: &mut Outbox,
    ) -> Option<Vec<Transition>> {
        self.twins = admitted.twins;
        if !admitted.changed && !force {
            return None;
        }
        self.health = admitted.health;
        let first = self.revision == 0;
        let root = Arc::clone(&self.root);
        let old = root.snapshot();
        let mut next = self.select(admitted.entries, &root.selection, options);
        let (transitions, differs) = diff::transitions(&old, &next);
        let mut derived = Vec::new();
        for view in self.derived_views() {
            let selected = self.select(next.entries.to_vec(), &view.selection, options);
            let (transitions, differs) = diff::transitions(&view.snapshot(), &selected);
            if first || differs {
                derived.push((view, selected, transitions));
            }
        }
        if !first && !differs && derived.is_empty() {
            return None;
        }
        self.revision += 1;
        // The root goes last, so that no view is behind the revision that it shows.
        for (view, mut snapshot, transitions) in derived {
            snapshot.revision = self.revision();
            snapshot.received = received;
            view.publish(Arc::new(snapshot), &transitions, out);
        }
        next.revision = self.revision();
        next.received = received;
        let next = Arc::new(next);
        root.publish(Arc::clone(&next), &transitions, out);
        self.note_flapping(&transitions, out);
        // Of a merged set each source has said it already.
        if self.parts.is_none() && tracing::enabled!(target: logs::DIRECTORY, tracing::Level::INFO)
        {
            let mut changes = change::between(&old, &next, &self.stones);
            changes.retain(|change| {
                let told = change.kind == ChangeKind::Updated;
                told || !self.flapping.has(change.instance.address())
            });
            out.changes.extend(changes);
        }
        self.note_nobody(&old, &next, out);
        if next.mode == Mode::Panic
            && old.mode != Mode::Panic
            && let Some(now) = self.news_at
        {
            self.warn(Warning::Panic, Note::Panic, now, out);
        }
        out.notify = true;
        Some(transitions)
    }

    /// Instances that come and go again and again.
    fn note_flapping(&mut self, transitions: &[Transition], out: &mut Outbox) {
        // What nobody reads is not counted on the way of a push.
        if !tracing::enabled!(target: logs::DIRECTORY, tracing::Level::WARN) {
            return;
        }
        let Some(now) = self.news_at else { return };
        let begun = self.flapping.note(transitions, now);
        if !begun.is_empty() {
            self.warned[Warning::Flapping as usize] = Some(now);
            out.notes.push(Note::Flapping(begun));
        } else if transitions.iter().any(|t| self.flapping.has(&t.address)) {
            let all = self.flapping.all();
            self.warn(Warning::Flapping, Note::Flapping(all), now, out);
        }
    }

    /// Nobody is left to be called, or somebody is again.
    fn note_nobody(&mut self, old: &Snapshot, next: &Snapshot, out: &mut Outbox) {
        let Some(now) = self.news_at else { return };
        if next.callable_len() > 0 {
            if let Some(since) = self.nobody_since.take() {
                let lasted = now.saturating_duration_since(since);
                out.notes.push(Note::Somebody { lasted });
            }
            return;
        }
        // A service that nobody provides yet is no news.
        let lost = old.callable_len() > 0 || (old.entries.is_empty() && !next.entries.is_empty());
        if lost && self.nobody_since.is_none() {
            let told = out.notes.len();
            let listed = next.entries.len();
            self.warn(Warning::Nobody, Note::Nobody { listed }, now, out);
            self.nobody_since = (out.notes.len() > told).then_some(now);
        }
    }

    fn select(
        &self,
        mut entries: Vec<Entry>,
        selection: &Selection,
        options: &Options,
    ) -> Snapshot {
        let (mode, callable) = ladder::climb(
            &mut entries,
            &self.health,
            selection,
            self.protected,
            options.on_all_unhealthy,
        );
        Snapshot {
            mode,
            callable,
            known: self.known,
            ended: self.closed && !self.known,
            entries: entries.into_boxed_slice(),
            hint: self.hint.clone(),
            ..Snapshot::default()
        }
    }
}
