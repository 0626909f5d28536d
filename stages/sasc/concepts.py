"""Names that concepts go by in English, from which an explanation without a language model takes its words.

They were collected by going through fields of life one by one, and hold what a short list of phrases can have in common:
topics, kinds of things and people, feelings, acts, forms of sentence, and styles.
"""

_NATURE = """
animals; wild animals; pets; farm animals; birds; fish; insects; reptiles and snakes; dogs; cats; horses; cattle; sea
creatures; dinosaurs; plants; trees; flowers; fruit; vegetables; crops and farming; gardens and gardening; forests;
mountains; rivers; lakes; the sea; beaches and coasts; islands; deserts; caves; volcanoes and earthquakes; weather;
rain; snow and ice; wind and storms; heat; cold; fire; water; the sky; the sun; the moon; stars and planets; light;
darkness; stones and minerals; metals; soil; the environment; pollution; climate; nature; hunting; fishing; floods and
disasters; seasons; spring; summer; autumn; winter
"""
_SCIENCE = """
astronomy; space travel; physics; chemistry; biology; genetics; evolution; geology; geography; mathematics; geometry;
statistics; logic; computers; computer programming; software; the internet; data; robots and machines; engineering;
electricity; electronics; energy; nuclear power; technology; inventions; medicine; hospitals; diseases; illness;
injuries; pain; drugs; doctors and nurses; surgery; teeth; mental health; psychology; the brain; the body; the face;
hands; blood; food and nutrition; pregnancy and birth; death; ageing; linguistics; language; grammar; archaeology;
experiments; measurement; scientific research; theories
"""
_SOCIETY = """
politics; government; elections; parliament; laws; courts and trials; crime; murder; police; prison; war; battles;
soldiers; weapons; peace; the military; the navy; aircraft; spies; terrorism; revolution; kings and queens; nobility;
history; the ancient world; the Middle Ages; empires; slavery; religion; God; churches; the Bible; prayer; Islam;
Buddhism; saints; angels and demons; philosophy; ethics; money; banking; finance; taxes; trade; shops and shopping;
prices; business; companies; advertising; marketing; insurance; work; jobs and professions; workers; unemployment;
poverty; wealth; charity; schools; universities; teachers; students; exams; education; books; libraries; newspapers;
journalism; news; television; radio; film; actors; theatre; music; songs; musical instruments; orchestras; dance;
painting; art; sculpture; museums; photography; architecture; poetry; literature; novels; writers; fairy tales; myths
and legends; comics; humour; celebrities; fashion; beauty; festivals; holidays; weddings; marriage; divorce; families;
mothers; fathers; children; babies; friends; love; romance; sex; neighbours; parties; funerals; immigration; race;
gender; women; men; human rights; demonstrations; strikes
"""
_LIFE = """
food; cooking; recipes; restaurants; baking and bread; meat; cheese and milk; sweets; coffee and tea; wine; beer;
alcohol; drinks; smoking; hunger; taste; smells; sounds; noise; silence; colours; touch; houses; homes; rooms;
kitchens; bathrooms; bedrooms; furniture; tools; kitchen utensils; household things; cleaning; washing; clothes;
shoes; jewellery; hair; bags; boxes and containers; toys; games; chess; card games; gambling; video games; sports;
football; cricket; baseball; basketball; tennis; golf; swimming; running; cycling; skiing and winter sports; boxing
and fighting; climbing; sailing; boats and ships; travel; tourism; hotels; camping; cars; vehicles; trains and
railways; buses; roads and traffic; bicycles; flying; airports; cities; villages; streets; buildings; bridges;
castles; farms; countries; places; directions; distances; borders; maps; sleep; dreams; hobbies; sewing and textiles;
wood; building and construction; paper; glass; plastic; post and letters; telephones; mobile phones; clocks; keys and
locks; accidents; rescue; emergencies
"""
_PEOPLE = """
people; names of people; first names; surnames; famous people; titles of people; groups of people; relatives; names of
places; names of countries; names of cities; nationalities; names of companies; brands; organisations; languages;
titles of works; numbers; dates; days of the week; months; years; times of day; durations; centuries; ages;
quantities; sizes; weights; lengths; temperatures; speeds; percentages; amounts of money; units of measurement;
ordinal numbers; fractions; abbreviations; addresses; shapes; materials;;;;;;; body parts;; physical appearance;
character; abilities
"""
_FEELINGS = """
feelings; happiness; joy; fun; excitement; enthusiasm; hope; optimism; relief; gratitude; pride; love and affection;
tenderness; compassion; kindness; sympathy; trust; admiration; respect; calm; contentment; satisfaction; surprise;
amazement; curiosity; interest; boredom; tiredness; indifference; confusion; doubt; worry; nervousness; fear; horror;
panic; sadness; grief; loss; loneliness; homesickness; nostalgia; longing; despair; disappointment; regret; guilt;
shame; embarrassment; shyness; jealousy; envy; greed; anger; rage; irritation; frustration; contempt; hatred; disgust;
cruelty; revenge; resentment; stubbornness; laziness; courage; ambition; determination; patience; impatience;
suspicion; betrayal; forgiveness; desire; praise; criticism; complaints; insults; mockery; threats; danger; safety;
freedom; success; failure; victory; defeat; achievement; beauty and ugliness; positive feelings; negative feelings;
suffering; violence
"""
_ACTS = """
questions; asking; answers; commands; orders; requests; advice; suggestions; instructions; warnings; promises; offers;
invitations; apologies; thanks; greetings; farewells; wishes; exclamations; statements; negation and denial; refusal;
agreement; disagreement; arguments; speech; what somebody said; quotations; conversation; thoughts and opinions;
beliefs; knowledge; memory; forgetting; imagination; lies; secrets; truth; explanations; reasons and causes; results
and consequences; conditions; contrast; comparison; similarity; difference; examples; emphasis; certainty;
uncertainty; possibility; ability; obligation; necessity; duty; permission; prohibition; intention; plans;
predictions; the future; the past; the present; beginnings; endings; change; growth; decline; repetition; habits;
frequency; speed; slowness; movement; falling; walking; throwing; giving; taking; buying and selling; stealing; losing
things; finding; searching; waiting; arriving; leaving; meeting; helping; teaching; learning; reading; writing;
speaking; listening; seeing; looking; hiding; breaking; repairing; making; destroying; cutting; opening and closing;
eating; drinking; touching; hitting; kissing; laughing; crying; shouting; playing; working; resting; trying; choosing;
deciding; possession; existence; names and naming; hypothetical situations; passive voice; past tense; first person;
second person; plural nouns; adjectives; adverbs; pronouns; verbs;;;;;; superlatives
"""
_STYLES = """
informal speech; slang; swearing; baby talk; formal language; formal letters; business letters; official documents;
legal language; contracts; technical manuals; scientific writing; medical reports; news reports; headlines; sports
commentary; weather reports; advertisements; slogans; reviews; speeches; sermons; prayers; hymns; poems; rhymes; song
lyrics; proverbs and sayings; jokes; riddles; puns; irony and sarcasm; gossip and rumours; diaries; personal letters;
biographies; obituaries; travel writing; fairy tales for children; science fiction; fantasy; horror stories; detective
stories; romantic novels; plays and dialogue; interviews; text messages; e-mails; social media; recipes and directions
for use; textbooks; encyclopedias; dictionaries; archaic language; old-fashioned language; dialect; foreign words;
flowery language; metaphors; exaggeration; understatement; politeness; rudeness; bureaucracy; political speeches;
conspiracy theories; philosophical writing; religious texts; self-help; motivational speech; computer code;
mathematical formulas
"""
CONCEPTS: tuple[str, ...] = tuple(
    dict.fromkeys(
        " ".join(name.split())
        for part in (_NATURE, _SCIENCE, _SOCIETY, _LIFE, _PEOPLE, _FEELINGS, _ACTS, _STYLES)
        for name in part.split(";")
        if name.strip()
    )
)
